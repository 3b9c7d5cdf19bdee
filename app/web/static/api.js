// Client of the API: sends the page's CSRF token, throws problem documents as errors.
const csrfToken = document.querySelector('meta[name="csrf-token"]').content;

export class Problem extends Error {
  constructor(document) {
    super([document.what ?? document.detail, document.expected && `expected ${document.expected}`,
      document.found && `found ${document.found}`, document.remedy].filter(Boolean).join('; '));
    this.document = document;
  }
}

export async function api(path, { method = 'GET', json, body, headers = {} } = {}) {
  const allHeaders = { Accept: 'application/json', 'X-CSRF-Token': csrfToken, ...headers };
  if (json !== undefined) {
    allHeaders['Content-Type'] = 'application/json';
    body = JSON.stringify(json);
  }
  const response = await fetch(`/api/v1${path}`, { method, body, headers: allHeaders });
  const document = await response.json();
  if (!response.ok) throw new Problem(document);
  return document;
}

// XMLHttpRequest reports upload progress; fetch does not.
export function upload(path, form, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('POST', `/api/v1${path}`);
    request.setRequestHeader('X-CSRF-Token', csrfToken);
    request.setRequestHeader('Accept', 'application/json');
    request.responseType = 'json';
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(new Problem({ what: 'the connection was lost', remedy: 'try again' }));
    request.onload = () => (request.status < 300
      ? resolve(request.response)
      : reject(new Problem(request.response ?? { what: `the service responded with ${request.status}` })));
    request.send(form);
  });
}

// Runs a form's action: disables its buttons meanwhile, shows an error in the form.
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
