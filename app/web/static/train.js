import { api, attempt } from './api.js';

const form = document.getElementById('train');

form.addEventListener('submit', (event) => {
  event.preventDefault();
  const { minutes, seed } = Object.fromEntries(new FormData(form));
  attempt(form, async () => {
    const made = await api('/runs', {
      method: 'POST',
      json: { dataset: form.dataset.dataset, time_limit_s: Number(minutes) * 60, seed: Number(seed) },
    });
    window.location.assign(`/jobs/${made.job}`);
  });
});
