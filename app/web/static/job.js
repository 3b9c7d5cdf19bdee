import { api, stateTag } from './api.js';

const { job: id } = document.getElementById('job').dataset;
const byId = (name) => document.getElementById(name);
const losses = [];
const scores = [];

function drawLine(points, name, top) {
  if (points.length < 2) return null;
  const last = Math.max(...[...losses, ...scores].map(([step]) => step), 1);
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('class', name);
  path.setAttribute('d', points.map(([step, value], index) => (
    `${index ? 'L' : 'M'}${((step / last) * 600).toFixed(1)} ${(195 - (Math.min(value, top) / top) * 190).toFixed(1)}`
  )).join(''));
  return path;
}

function draw() {
  const top = Math.max(...losses.map(([, loss]) => loss), 1e-6);
  const lines = [drawLine(losses, 'loss', top), drawLine(scores, 'dice', 1)].filter(Boolean);
  byId('curve').querySelector('svg').replaceChildren(...lines);
  byId('curve').hidden = !lines.length;
  if (scores.length) byId('dice').textContent = Math.max(...scores.map(([, dice]) => dice)).toFixed(3);
}

function showNumbers(data) {
  const parts = [];
  if (data.done != null && data.total) parts.push(`${data.done} of ${data.total}`);
  if (data.step != null && data.steps) parts.push(`step ${data.step} of ${data.steps}`);
  if (data.loss != null) parts.push(`loss ${data.loss.toFixed(3)}`);
  if (data.seconds_left != null) parts.push(`${Math.max(0, Math.round(data.seconds_left))} s left`);
  if (parts.length) byId('numbers').textContent = parts.join(' · ');
  const share = data.done != null ? data.done / data.total : data.step / data.steps;
  if (Number.isFinite(share)) byId('progress').value = share;
}

function onEvent(event) {
  const { data } = event;
  const line = document.createElement('li');
  const text = event.event === 'traceback' ? `\n${data.text}` : JSON.stringify(data);
  line.textContent = `${event.at.slice(11, 19)} ${event.event} ${text}`;
  if (event.event === 'traceback') line.style.whiteSpace = 'pre-wrap';
  byId('events').append(line);
  if (event.event === 'started') byId('state').replaceChildren(stateTag('running'));
  if (data.loss != null && data.step != null) losses.push([data.step, data.loss]);
  const dice = data.val_dice ?? data.dice;
  if (dice != null && data.step != null) scores.push([data.step, dice]);
  showNumbers(data);
}

async function showReport(job) {
  const report = await api(`/sources/${job.inputs.source}/doctor?job=${id}`);
  byId('report').hidden = false;
  byId('pictures').href = `/sources/${job.inputs.source}?job=${id}`;
  byId('report-summary').textContent = `${report.pairs.length} pairs; ${report.unpaired_images.length} images and `
    + `${report.unpaired_masks.length} masks without a partner; ${report.questions.length} open questions.`;
  byId('findings').replaceChildren(...report.findings.map((finding) => {
    const line = document.createElement('li');
    line.className = finding.severity;
    line.textContent = `${finding.message} ${finding.remedy ?? ''}`;
    return line;
  }));
  byId('proposed').textContent = JSON.stringify(report.rules, null, 2);
  byId('keep-proposed').onclick = async () => {
    const made = await api('/rules', { method: 'POST', json: report.rules });
    window.location.assign(`/rules/${made.id}`);
  };
}

function showResult(job) {
  const { kind, id: made } = job.result;
  const where = {
    source: ['/datasets', 'Examine and format the source'],
    dataset: [`/datasets/${made}`, 'Open the dataset'],
    run: ['/predict', 'Try the model on an image'],
  }[kind];
  if (!where) return;
  const link = document.createElement('a');
  [link.href, link.textContent] = where;
  link.className = 'button';
  byId('result').replaceChildren(link);
  byId('result').hidden = false;
}

function onEnd(job) {
  byId('state').replaceChildren(stateTag(job.status));
  byId('cancel').hidden = true;
  byId('numbers').textContent = byId('numbers').textContent.replace(/ · \d+ s left$/, '');
  byId('progress').value = job.status === 'succeeded' ? 1 : (job.progress?.share ?? 0);
  if (job.error) {
    byId('error').textContent = job.error.text;
    byId('error').hidden = false;
  }
  if (job.result) showResult(job);
  if (job.kind === 'doctor' && job.status === 'succeeded') showReport(job);
}

async function follow(after = 0) {
  let next = after;
  for (;;) {
    const batch = await api(`/jobs/${id}/events?after=${next}`);
    batch.events.forEach(onEvent);
    if (batch.events.length) draw();
    next = batch.next;
    const ended = !['queued', 'running'].includes(batch.status);
    if (ended && !batch.events.length) break;
    if (!batch.events.length) await new Promise((resolve) => { setTimeout(resolve, 1000); });
  }
  onEnd(await api(`/jobs/${id}`));
}

byId('cancel').addEventListener('click', async () => {
  byId('cancel').disabled = true;
  try {
    await api(`/jobs/${id}/cancel`, { method: 'POST' });
  } catch (error) {
    byId('error').textContent = error.message;
    byId('error').hidden = false;
  }
});
follow();
