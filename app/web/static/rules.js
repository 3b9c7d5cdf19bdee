import { api } from './api.js';

const form = document.getElementById('rules');
const view = document.getElementById('json');
const download = document.getElementById('download');
const mistake = document.getElementById('mistake');
const tabs = [...document.querySelectorAll('[role=tab]')];
let forms = null;
let shown = 'rules';
let waiting = 0;
let latestRequest = 0;

function formFields() {
  const fields = Object.fromEntries(new FormData(form));
  delete fields.csrf_token;
  return fields;
}

function showTree() {
  const separate = form.elements.separate_file_format.checked;
  const keyword = form.elements.description.value;
  const suffix = { 1: 'jpg', 2: 'png', 3: 'bmp' }[form.elements.image_type.value];
  const folders = separate ? ['images/', 'masks/'] : ['', ''];
  document.getElementById('tree').textContent = `train/${folders[0]}NAME.${suffix}\ntrain/${folders[1]}NAME${keyword}.png`;
}

function show() {
  tabs.forEach((tab) => {
    const selected = tab.id === `tab-${shown}`;
    tab.setAttribute('aria-selected', selected);
    tab.tabIndex = selected ? 0 : -1;
  });
  view.setAttribute('aria-labelledby', `tab-${shown}`);
  if (!forms) return;
  const text = JSON.stringify(forms[shown], null, 2);
  view.textContent = text;
  download.download = shown === 'rules' ? 'rules.json' : 'rules-short.json';
  download.textContent = `Download ${download.download}`;
  URL.revokeObjectURL(download.href);
  download.href = URL.createObjectURL(new Blob([`${text}\n`], { type: 'application/json' }));
}

async function convert() {
  const request = ++latestRequest;
  showTree();
  try {
    const converted = await api('/rules/convert', { method: 'POST', json: formFields() });
    if (request !== latestRequest) return;
    forms = converted;
    mistake.hidden = true;
    show();
  } catch (error) {
    if (request !== latestRequest) return;
    mistake.textContent = error.message;
    mistake.hidden = false;
  }
}

form.addEventListener('input', () => {
  clearTimeout(waiting);
  waiting = setTimeout(convert, 200);
});
tabs.forEach((tab, index) => {
  const choose = (chosen) => { shown = chosen.id.replace('tab-', ''); show(); };
  tab.addEventListener('click', () => choose(tab));
  tab.addEventListener('keydown', (event) => {
    if (!['ArrowLeft', 'ArrowRight'].includes(event.key)) return;
    const other = tabs[(index + 1) % tabs.length];
    choose(other);
    other.focus();
  });
});
convert();
