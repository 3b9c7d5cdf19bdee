// One way to call the API: with the page's proof, and problem documents as errors.
const proof = document.querySelector('meta[name="csrf-token"]').content;

export class Problem extends Error {
  constructor(document) {
    super([document.what ?? document.detail, document.expected && `expected ${document.expected}`,
      document.found && `found ${document.found}`, document.remedy].filter(Boolean).join('; '));
    this.document = document;
  }
}

export async function api(path, { method = 'GET', json, body, headers = {} } = {}) {
  const sent = { Accept: 'application/json', 'X-CSRF-Token': proof, ...headers };
  if (json !== undefined) {
    sent['Content-Type'] = 'application/json';
    body = JSON.stringify(json);
  }
  const answer = await fetch(`/api/v1${path}`, { method, body, headers: sent });
  const document = await answer.json();
  if (!answer.ok) throw new Problem(document);
  return document;
}

// fetch cannot tell how much of an upload is sent; XMLHttpRequest can.
export function upload(path, form, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('POST', `/api/v1${path}`);
    request.setRequestHeader('X-CSRF-Token', proof);
    request.setRequestHeader('Accept', 'application/json');
    request.responseType = 'json';
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(new Problem({ what: 'the connection broke', remedy: 'try again' }));
    request.onload = () => (request.status < 300
      ? resolve(request.response)
      : reject(new Problem(request.response ?? { what: `the service answered ${request.status}` })));
    request.send(form);
  });
}

// Runs an action of a form: one at a time, its error beside the button that started it.
export async function attempt(form, action) {
  const mistake = form.querySelector('.mistake');
  const buttons = [...form.querySelectorAll('button')];
  mistake.hidden = true;
  buttons.forEach((button) => { button.disabled = true; });
  try {
    await action();
  } catch (error) {
    mistake.textContent = error.message;
    mistake.hidden = false;
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
}

export function stateTag(status) {
  const tag = document.createElement('span');
  tag.className = `state ${status}`;
  tag.textContent = status;
  return tag;
}
