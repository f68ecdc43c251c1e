// What bars of a timeline are, for the pointer and for the keyboard. Without it bars of jobs are links all the same.

const bars = (box) => [...box.querySelectorAll('rect[data-text]')];

function tip(box, bar, x, y) {
  const out = box.querySelector('.t-tip');
  if (!out) return;
  if (!bar) { out.hidden = true; return; }
  if (out.textContent !== bar.dataset.text) out.textContent = bar.dataset.text;
  out.hidden = false;
  const { width, height } = out.getBoundingClientRect();
  out.style.left = `${Math.max(8, Math.min(innerWidth - width - 8, x + 12))}px`;
  out.style.top = `${y + 20 + height > innerHeight ? y - height - 10 : y + 18}px`;
}

let current = null; // where the keyboard is

function go(box, bar) {
  for (const old of box.querySelectorAll('.t-here')) old.classList.remove('t-here');
  current = bar;
  if (!bar) { tip(box, null); return; }
  bar.classList.add('t-here');
  bar.scrollIntoView({ block: 'nearest' });
  const at = bar.getBoundingClientRect();
  tip(box, bar, at.left, at.top);
}

// step finds the bar that an arrow key leads to: the next in the lane, or the nearest in the lane above or below.
function step(box, here, key) {
  const lane = here.closest('svg');
  const own = bars(lane).sort((a, b) => a.getBoundingClientRect().left - b.getBoundingClientRect().left);
  if (key === 'ArrowLeft' || key === 'ArrowRight') return own[own.indexOf(here) + (key === 'ArrowLeft' ? -1 : 1)] ?? here;
  if (key === 'Home') return own[0];
  if (key === 'End') return own.at(-1);
  const lanes = [...box.querySelectorAll('svg.t-bars')].filter((l) => bars(l).length);
  const other = lanes[lanes.indexOf(lane) + (key === 'ArrowUp' ? -1 : 1)];
  if (!other) return here;
  const x = here.getBoundingClientRect().left;
  return bars(other).reduce((best, b) => (Math.abs(b.getBoundingClientRect().left - x) < Math.abs(best.getBoundingClientRect().left - x) ? b : best));
}

document.addEventListener('pointermove', (e) => {
  const box = e.target.closest?.('[data-timeline]');
  for (const other of document.querySelectorAll('[data-timeline]')) if (other !== box) tip(other, null);
  if (box) tip(box, e.target.closest('rect[data-text]'), e.clientX, e.clientY);
});

document.addEventListener('keydown', (e) => {
  const box = e.target.closest?.('[data-timeline]');
  if (!box || e.ctrlKey || e.metaKey || e.altKey) return;
  const here = box.querySelector('.t-here');
  if (e.key === 'Escape') { go(box, null); return; }
  if (e.key === 'Enter' && here && e.target.matches('.t-lanes')) { here.closest('a')?.dispatchEvent(new MouseEvent('click', { bubbles: true, cancelable: true })); return; }
  if (!/^(Arrow(Left|Right|Up|Down)|Home|End)$/.test(e.key) || !e.target.matches('.t-lanes')) return;
  e.preventDefault();
  go(box, here ? step(box, here, e.key) : bars(box)[0]);
});

document.addEventListener('focusin', (e) => {
  const box = e.target.closest?.('[data-timeline]');
  const bar = e.target.matches?.('svg a') ? e.target.querySelector('rect[data-text]') : null;
  if (box && bar) { const at = bar.getBoundingClientRect(); tip(box, bar, at.left, at.top); }
});

document.addEventListener('focusout', (e) => { const box = e.target.closest?.('[data-timeline]'); if (box) go(box, null); });

// The lanes are one stop of the tab key; arrow keys go on from there. An update of the page leaves the mark where it was.
function ready() {
  for (const link of document.querySelectorAll('[data-timeline] svg a')) link.setAttribute('tabindex', '-1');
  const box = document.activeElement?.closest('[data-timeline]');
  if (box && current?.isConnected) { current.classList.add('t-here'); tip(box, current, current.getBoundingClientRect().left, current.getBoundingClientRect().top); }
}
ready();
document.addEventListener('tranter:updated', ready);
