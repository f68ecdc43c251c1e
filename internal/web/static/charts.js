// Draws the charts of a page from /api/chart, and fills the tables of their values. Needs uPlot.

const COLOURS = ['--s1', '--s2', '--s3', '--s4', '--s5', '--s6', '--s7'];
// What has a colour of its own; the rest takes the next one.
const OWN = {
  idle: '--s5', leased: '--s1', booting: '--s2', wanted: '--s7', draining: '--s4', removing: '--s6', stopped: '--t-removing',
  running: '--s1', waiting: '--s2', success: '--s3', failed: '--s6', p50: '--s1', p95: '--s2', cost: '--s3',
};
const WORDS = { success: 'succeeded' };
const STACKED = new Set(['machines', 'jobs']);

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const word = (name) => (WORDS[name] ?? name).replaceAll('_', ' ');

function seconds(v) {
  if (v < 60) return `${v < 10 ? +v.toFixed(1) : Math.round(v)}s`;
  if (v < 3600) return `${Math.floor(v / 60)}m${Math.round(v % 60) ? String(Math.round(v % 60)).padStart(2, '0') + 's' : ''}`;
  return `${Math.floor(v / 3600)}h${Math.round((v % 3600) / 60) ? String(Math.round((v % 3600) / 60)).padStart(2, '0') + 'm' : ''}`;
}

function text(value, unit) {
  if (value == null) return '–';
  if (unit === 'seconds') return seconds(value);
  if (unit === 'machines' || unit === 'jobs') return String(+value.toFixed(1));
  return `${value >= 100 ? value.toFixed(0) : value.toFixed(2)} ${unit}`;
}

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.box = figure.querySelector('.chart-draw');
    this.legend = figure.querySelector('.chart-legend');
    this.note = figure.querySelector('.chart-note');
    this.table = figure.querySelector('.chart-table');
    this.details = figure.querySelector('details');
    this.details.addEventListener('toggle', () => this.fill());
    new ResizeObserver(() => this.resize()).observe(this.box);
    this.seen = new IntersectionObserver((all) => { if (all.some((e) => e.isIntersecting)) { this.seen.disconnect(); this.load(); } }, { rootMargin: '200px' });
    this.seen.observe(figure);
  }

  // load fetches the values, and draws them if they are others.
  async load() {
    const holder = this.figure.closest('[data-charts]');
    if (!holder || this.busy) return;
    this.busy = true;
    try {
      const q = new URLSearchParams({ name: this.figure.dataset.chart, range: holder.dataset.range });
      if (holder.dataset.runner) q.set('runner', holder.dataset.runner);
      const answer = await fetch(`/api/chart?${q}`, { headers: { Accept: 'application/json' } });
      const got = await answer.json();
      if (!answer.ok) throw new Error(got.error ?? `the server answered ${answer.status}`);
      this.show(got);
    } catch (err) {
      this.note.textContent = `This chart can't be drawn: ${err.message}.`;
    } finally {
      this.busy = false;
      this.at = Date.now();
    }
  }

  show(chart) {
    this.chart = chart;
    const from = Date.parse(chart.from) / 1000;
    const step = chart.step / 1e9;
    const length = Math.max(0, ...chart.series.map((s) => s.values.length));
    const known = chart.series.some((s) => s.values.some((v) => v != null));
    this.note.textContent = known ? '' : 'Nothing is known of this time yet.';
    this.times = Array.from({ length }, (_, i) => from + i * step);
    this.values = chart.series.map((s) => s.values);
    const names = chart.series.map((s) => s.name).join('\n');
    const data = [this.times, ...this.stack()];
    if (this.plot && this.names === names) this.plot.setData(data);
    else { this.names = names; this.draw(data); }
    this.tell(null);
    this.fill();
  }

  stacked() { return STACKED.has(this.figure.dataset.chart); }

  // stack adds up what stands on one another; a value that is not known is none.
  stack() {
    if (!this.stacked()) return this.values;
    const sum = new Array(this.times.length).fill(0);
    return this.values.map((values) => values.map((v, i) => (v == null ? (sum[i] || null) : (sum[i] += v))));
  }

  colour(name, i) { return token(OWN[name] ?? COLOURS[i % COLOURS.length]); }

  draw(data) {
    this.plot?.destroy();
    const { chart } = this;
    const stacked = this.stacked();
    const series = chart.series.map((s, i) => {
      const colour = this.colour(s.name, i);
      return { label: word(s.name), stroke: stacked ? 'transparent' : colour, width: 1.5, fill: stacked ? colour + 'b0' : colour + '18', points: { show: false }, spanGaps: false, paths: stacked || chart.unit !== 'seconds' ? uPlot.paths.stepped({ align: 1 }) : undefined };
    });
    const axis = { stroke: token('--muted'), font: '11px ' + token('--font'), grid: { stroke: token('--grid'), width: 1 }, ticks: { show: false } };
    const bands = stacked ? chart.series.slice(1).map((_, i) => ({ series: [i + 2, i + 1] })) : [];
    this.plot = new uPlot({
      width: Math.max(120, this.box.clientWidth), height: this.box.clientHeight, padding: [8, 16, 0, 0], bands,
      series: [{}, ...series], legend: { show: false }, scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
      cursor: { sync: { key: 'charts' }, drag: { x: false, y: false }, points: { size: 6 }, y: false },
      axes: [{ ...axis, size: 24, values: this.clock }, { ...axis, size: 58, values: (_, all) => all.map((v) => this.short(v)) }],
      hooks: { setCursor: [(u) => this.tell(u.cursor.idx)] },
    }, data, this.box);
  }

  short(v) {
    const { unit } = this.chart;
    if (unit === 'machines' || unit === 'jobs') return Number.isInteger(v) ? String(v) : '';
    return unit === 'seconds' ? seconds(v) : String(+v.toFixed(2));
  }

  clock(u, splits, _axis, _space, incr) {
    return splits.map((t) => {
      const d = new Date(t * 1000);
      const day = d.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });
      const time = d.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
      return incr >= 86400 || time === '00:00' ? day : time;
    });
  }

  // tell writes the legend, with the values under the cursor or the last ones.
  tell(i) {
    if (!this.chart) return;
    let last = i ?? this.times.length - 1;
    while (i == null && last > 0 && this.chart.series.every((s) => s.values[last] == null)) last--; // the present has no value yet
    const items = this.chart.series.map((s, n) => {
      const li = document.createElement('li');
      const dot = document.createElement('i');
      dot.style.backgroundColor = this.colour(s.name, n);
      const value = document.createElement('b');
      value.textContent = text(s.values[last], this.chart.unit);
      li.append(dot, word(s.name), ' ', value);
      return li;
    });
    if (i != null) {
      const when = document.createElement('li');
      when.textContent = new Date(this.times[i] * 1000).toLocaleString('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });
      items.push(when);
    }
    this.legend.replaceChildren(...items);
  }

  // fill writes the table, if it is open.
  fill() {
    if (!this.details.open || !this.chart) return;
    const head = document.createElement('thead');
    const row = head.insertRow();
    for (const name of ['Time', ...this.chart.series.map((s) => word(s.name))]) {
      const th = document.createElement('th');
      th.scope = 'col';
      th.textContent = name;
      row.append(th);
    }
    const body = document.createElement('tbody');
    for (let i = this.times.length - 1; i >= 0; i--) {
      if (this.chart.series.every((s) => s.values[i] == null)) continue;
      const tr = body.insertRow();
      tr.insertCell().textContent = new Date(this.times[i] * 1000).toLocaleString('en-GB');
      for (const s of this.chart.series) tr.insertCell().textContent = text(s.values[i], this.chart.unit);
    }
    this.table.tHead?.remove();
    for (const old of [...this.table.tBodies]) old.remove();
    this.table.append(head, body);
  }

  resize() {
    if (!this.plot) return;
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.plot.setSize({ width: Math.max(120, this.box.clientWidth), height: this.box.clientHeight }));
  }

  paint() { if (this.chart) this.draw([this.times, ...this.stack()]); }
}

const all = new Map();
function mount() {
  for (const figure of document.querySelectorAll('[data-chart]')) if (!all.has(figure)) all.set(figure, new Chart(figure));
}
mount();

// The range and the runner are in the address: when the page has another one, all is drawn anew. Values are minutes old at most.
let look = '';
function refresh() {
  mount();
  const holder = document.querySelector('[data-charts]');
  const now = holder ? `${holder.dataset.range} ${holder.dataset.runner}` : '';
  const other = look !== '' && look !== now;
  look = now;
  for (const chart of all.values()) if (chart.at && (other || Date.now() - chart.at > 55_000)) chart.load();
}
refresh();
document.addEventListener('tranter:updated', refresh);
setInterval(() => { if (!document.hidden) refresh(); }, 60_000);
document.addEventListener('tranter:theme', () => { for (const chart of all.values()) chart.paint(); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { for (const chart of all.values()) chart.paint(); });
