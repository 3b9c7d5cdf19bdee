import { api, attempt } from './api.js';

document.querySelectorAll('[data-promote]').forEach((button) => {
  button.addEventListener('click', () => attempt(document.getElementById('main'), async () => {
    await api(`/models/${button.dataset.promote}/promote`, { method: 'POST' });
    window.location.reload();
  }));
});
