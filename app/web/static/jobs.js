import { api, stateTag } from './api.js';

// Rows of jobs that wait or run: their state and progress, every two seconds.
async function look() {
  const rows = [...document.querySelectorAll('[data-live-job]')];
  await Promise.allSettled(rows.map(async (row) => {
    const job = await api(`/jobs/${row.dataset.liveJob}`);
    row.querySelector('[data-state]').replaceChildren(stateTag(job.status));
    const share = job.status === 'succeeded' ? 1 : job.progress?.share;
    if (share != null) row.querySelector('progress').value = share;
    if (!['queued', 'running'].includes(job.status)) row.removeAttribute('data-live-job');
  }));
  if (document.querySelector('[data-live-job]')) setTimeout(look, 2000);
}

look();
