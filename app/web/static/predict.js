import { api, attempt } from './api.js';

const form = document.getElementById('predict');
const byId = (name) => document.getElementById(name);

function show(made) {
  byId('objects').textContent = `${made.objects} object${made.objects === 1 ? '' : 's'}`;
  byId('shares').textContent = Object.entries(made.class_share)
    .map(([name, share]) => `${name} ${(100 * share).toFixed(1)} %`).join(' · ');
  byId('base').src = made.links.image;
  byId('over').src = made.links.overlay;
  byId('mask').href = made.links.mask;
  byId('instances').href = made.links.instances;
  byId('prediction').textContent = `prediction ${made.id}`;
  byId('found').hidden = false;
}

async function predict(file) {
  byId('busy').querySelector('span').textContent = file.name;
  byId('busy').hidden = false;
  await attempt(form, async () => {
    const body = new FormData();
    body.append('model', form.elements.model.value);
    body.append('image', file);
    show(await api('/predictions', { method: 'POST', body }));
  });
  byId('busy').hidden = true;
}

if (form) {
  const drop = byId('drop');
  byId('image').addEventListener('change', (event) => event.target.files[0] && predict(event.target.files[0]));
  byId('opacity').addEventListener('input', (event) => { byId('over').style.opacity = event.target.value; });
  ['dragenter', 'dragover'].forEach((name) => drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add('over');
  }));
  ['dragleave', 'drop'].forEach((name) => drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.remove('over');
  }));
  drop.addEventListener('drop', (event) => event.dataTransfer.files[0] && predict(event.dataTransfer.files[0]));
}
