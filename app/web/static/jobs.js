import { api, stateTag } from './api.js';

// Refreshes state and progress of unfinished jobs every two seconds.
async function refresh() {
  const rows = [...document.querySelectorAll('[data-live-job]')];
  await Promise.allSettled(rows.map(async (row) => {
    const job = await api(`/jobs/${row.dataset.liveJob}`);
    row.querySelector('[data-state]').replaceChildren(stateTag(job.status));
    const share = job.status === 'succeeded' ? 1 : job.progress?.share;
    if (share != null) row.querySelector('progress').value = share;
    if (!['queued', 'running'].includes(job.status)) row.removeAttribute('data-live-job');
  }));
  if (document.querySelector('[data-live-job]')) setTimeout(refresh, 2000);
}

refresh();
