import { api, attempt, upload } from './api.js';

const uploadForm = document.getElementById('upload');
const fetchForm = document.getElementById('fetch');
const formatForm = document.getElementById('format');

uploadForm.addEventListener('submit', (event) => {
  event.preventDefault();
  const sent = document.getElementById('sent');
  const form = new FormData(uploadForm);
  attempt(uploadForm, async () => {
    sent.hidden = false;
    try {
      await upload('/sources', form, (share) => { sent.value = share; });
      window.location.reload();
    } finally {
      sent.hidden = true;
    }
  });
});

fetchForm.addEventListener('submit', (event) => {
  event.preventDefault();
  const { url } = Object.fromEntries(new FormData(fetchForm));
  attempt(fetchForm, async () => {
    const made = await api('/sources', { method: 'POST', json: { url } });
    window.location.assign(`/jobs/${made.job}`);
  });
});

formatForm.addEventListener('submit', (event) => {
  event.preventDefault();
  const { source, rules } = Object.fromEntries(new FormData(formatForm));
  const isDoctor = event.submitter?.value === 'doctor';
  attempt(formatForm, async () => {
    const made = isDoctor
      ? await api(`/sources/${source}/doctor`, { method: 'POST' })
      : await api('/datasets', { method: 'POST', json: { source, rules } });
    window.location.assign(`/jobs/${made.job}`);
  });
});
