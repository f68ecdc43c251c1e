// The log of a job: a parser that makes lines and sections of bytes, and a viewer that draws only the lines that are seen.

const ROW = 20; // height of a line, as data.css has it
const MOST_BYTES = 64 * 1024 * 1024; // shown; the rest is in the raw log
const MOST_LINES = 800_000; // so that the list is not higher than a browser can make it
const PIECE = 16 * 1024; // a longer line is cut into pieces, which continue it

const HEADER = 32; // length of what FF_TIMESTAMPS puts before a line
const STAMP = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([0-9a-f]{2}[OE])([ +])/;
const MARK = /(?:\x1b\[0K)?section_(start|end):(\d+):([A-Za-z0-9_.-]+)(?:\[([^\]\r\n]*)\])?\r(?:\x1b\[0K)?/g;
const ESCAPE = /\x1b\[([0-9:;<=>?]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b\[?[0-9:;<=>?]*[ -/]*[0-~]?/g;
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f]/g;
const LINK = /https?:\/\/[^\s<>"'`\\^{|}\x00-\x1f]+/g;

// PLAIN is how text looks that nothing was said of. A style never changes once it is made, and there is one of each look.
const PLAIN = { fg: '', bg: '', bold: false, dim: false, italic: false, underline: false, strike: false, inverse: false, hidden: false };
const styles = new Map([[JSON.stringify(PLAIN), PLAIN]]);
const steps = new Map();

// sgr returns the style after a sequence of parameters. Colours are 'c0' to 'c15', or '#rrggbb'.
export function sgr(style, parameters) {
  if (parameters === '' || parameters === '0' || parameters === '0;') return PLAIN;
  let next = steps.get(style);
  if (!next) steps.set(style, (next = new Map()));
  let known = next.get(parameters);
  if (known) return known;
  const made = changed(style, parameters);
  const key = JSON.stringify(made);
  known = styles.get(key) ?? made;
  if (steps.size > 4096 || next.size > 4096 || styles.size > 65536) forget();
  else { styles.set(key, known); next.set(parameters, known); }
  return known;
}

// forget bounds what a log of many colours makes us remember.
function forget() {
  styles.clear();
  steps.clear();
  styles.set(JSON.stringify(PLAIN), PLAIN);
}

function changed(style, parameters) {
  const s = { ...style };
  const n = parameters.replaceAll(':', ';').split(';').map((p) => parseInt(p, 10) || 0);
  for (let i = 0; i < n.length; i++) {
    const c = n[i];
    if (c === 0) Object.assign(s, PLAIN);
    else if (c === 1) s.bold = true;
    else if (c === 2) s.dim = true;
    else if (c === 3) s.italic = true;
    else if (c === 4 || c === 21) s.underline = true;
    else if (c === 7) s.inverse = true;
    else if (c === 8) s.hidden = true;
    else if (c === 9) s.strike = true;
    else if (c === 22) s.bold = s.dim = false;
    else if (c === 23) s.italic = false;
    else if (c === 24) s.underline = false;
    else if (c === 27) s.inverse = false;
    else if (c === 28) s.hidden = false;
    else if (c === 29) s.strike = false;
    else if (c >= 30 && c <= 37) s.fg = 'c' + (c - 30);
    else if (c >= 90 && c <= 97) s.fg = 'c' + (c - 82);
    else if (c >= 40 && c <= 47) s.bg = 'c' + (c - 40);
    else if (c >= 100 && c <= 107) s.bg = 'c' + (c - 92);
    else if (c === 39) s.fg = '';
    else if (c === 49) s.bg = '';
    else if (c === 38 || c === 48) {
      let colour = '';
      if (n[i + 1] === 5) { colour = palette(n[i + 2]); i += 2; } else if (n[i + 1] === 2) { colour = hex(n[i + 2], n[i + 3], n[i + 4]); i += 4; }
      if (c === 38) s.fg = colour; else s.bg = colour;
    }
  }
  return s;
}

function hex(...rgb) {
  return '#' + rgb.map((v) => Math.min(255, Math.max(0, v | 0)).toString(16).padStart(2, '0')).join('');
}

// palette returns a colour of the 256.
function palette(n) {
  if (!(n >= 0 && n <= 255)) return '';
  if (n < 16) return 'c' + n;
  if (n > 231) return hex(8 + (n - 232) * 10, 8 + (n - 232) * 10, 8 + (n - 232) * 10);
  const level = (v) => (v ? 55 + v * 40 : 0);
  n -= 16;
  return hex(level(Math.floor(n / 36)), level(Math.floor(n / 6) % 6), level(n % 6));
}

// plain returns text without its escape sequences and control characters.
export function plain(text) {
  if (text.includes('\x1b')) text = text.replace(ESCAPE, '');
  return text.replace(CONTROL, '');
}

// segments returns the parts of a text that look alike, as {text, style}.
export function segments(text, style) {
  const out = [];
  let from = 0;
  const add = (part) => {
    part = part.replace(CONTROL, '');
    if (part) out.push({ text: part, style });
  };
  if (text.includes('\x1b')) {
    ESCAPE.lastIndex = 0;
    for (let m; (m = ESCAPE.exec(text));) {
      add(text.slice(from, m.index));
      from = m.index + m[0].length;
      if (m[2] === 'm' && !/[<=>?]/.test(m[1])) style = sgr(style, m[1]);
    }
  }
  add(text.slice(from));
  return out;
}

// after returns the style that text leaves behind.
function after(text, style) {
  if (!text.includes('\x1b')) return style;
  ESCAPE.lastIndex = 0;
  for (let m; (m = ESCAPE.exec(text));) if (m[2] === 'm' && !/[<=>?]/.test(m[1])) style = sgr(style, m[1]);
  return style;
}

// overwritten returns what is left to be seen of text in which a carriage return begins the line anew. One at its end stays: what
// follows begins anew.
function overwritten(text) {
  let end = text.length;
  while (end > 0 && text[end - 1] === '\r') end--;
  const at = end > 0 ? text.lastIndexOf('\r', end - 1) : -1;
  return text.slice(at + 1, end + 1);
}

// LogParser makes lines of bytes as they come. A line is {raw, style, time, number, section, head, width}: raw has its escape
// sequences, style is that at its start, section is what it is in (or null), head the section that it is the heading of. The number
// is 0 for a piece that continues the line before it.
export class LogParser {
  constructor() {
    this.lines = [];
    this.sections = [];
    this.numbers = 0;
    this.full = false;
    this.decoder = new TextDecoder('utf-8');
    this.rest = '';
    this.section = null;
    this.streams = new Map();
  }

  // push takes the next bytes of the log.
  push(bytes) {
    this.text(this.decoder.decode(bytes, { stream: true }));
  }

  // end says that nothing follows: an unfinished line is one.
  end() {
    this.text(this.decoder.decode());
    if (this.rest) {
      this.line(this.rest, false);
      this.rest = '';
    }
    for (const s of this.sections) s.live = false;
  }

  // partial returns a line that has no end yet.
  partial() {
    return overwritten(this.rest.replace(STAMP, '').replace(MARK, ''));
  }

  text(text) {
    let from = 0;
    for (let at; (at = text.indexOf('\n', from)) >= 0; from = at + 1) {
      const part = text.slice(from, at);
      this.line(this.rest ? this.rest + part : part, true);
      this.rest = '';
    }
    this.rest += text.slice(from);
    while (this.rest.length > PIECE) {
      this.line(this.rest.slice(0, PIECE), false);
      this.rest = this.rest.slice(PIECE);
    }
  }

  // line takes a line of the log; one that has not ended is continued by the next.
  line(raw, ended) {
    const stamp = raw.length >= HEADER && raw[10] === 'T' && raw[26] === 'Z' ? STAMP.exec(raw.slice(0, HEADER)) : null;
    const id = stamp ? stamp[2] : '';
    let stream = this.streams.get(id);
    if (!stream) this.streams.set(id, (stream = { open: null, style: PLAIN, more: false }));
    const joins = stamp ? stamp[3] === '+' : stream.more;
    if (stamp) raw = raw.slice(stamp[0].length);
    if (!joins) stream.open = null;
    stream.more = !ended;
    const time = stamp ? stamp[1] : '';
    if (raw.includes('section_')) this.marked(stream, raw, time, joins);
    else this.add(stream, raw, time, joins);
  }

  // marked takes a line with marks of sections in it.
  marked(stream, raw, time, joins) {
    let from = 0;
    let found = false;
    MARK.lastIndex = 0;
    for (let m; (m = MARK.exec(raw));) {
      const before = raw.slice(from, m.index);
      if (plain(overwritten(before))) this.add(stream, before, time, joins || found);
      from = m.index + m[0].length;
      found = true;
      if (m[1] === 'start') this.begin(stream, m, time);
      else this.finish(stream, m);
    }
    const last = raw.slice(from);
    if (!found || plain(last)) this.add(stream, last, time, joins || found);
  }

  begin(stream, m, time) {
    const options = (m[4] || '').split(',').map((o) => o.trim());
    const section = {
      name: m[3], start: +m[2], end: 0, parent: this.section, live: true, last: this.lines.length,
      depth: this.section ? this.section.depth + 1 : 0,
      folded: options.includes('collapsed=true'), quiet: options.includes('hide_duration=true'), line: this.lines.length,
    };
    this.sections.push(section);
    stream.open = null;
    this.append(stream, '', time);
    const head = this.lines.at(-1);
    if (head) head.head = section;
    this.section = section;
  }

  finish(stream, m) {
    let s = this.section;
    while (s && s.name !== m[3]) s = s.parent;
    if (s) {
      for (let inner = this.section; inner !== s.parent; inner = inner.parent) {
        inner.live = false;
        inner.last = this.lines.length - 1;
      }
      s.end = +m[2];
      this.section = s.parent;
    }
    stream.open = null;
  }

  // add puts text at the end of a stream's open line, or makes a line of it.
  add(stream, raw, time, joins) {
    const open = joins ? stream.open : null;
    if (!open) {
      this.append(stream, raw, time);
      return;
    }
    if (open.raw.length + raw.length > PIECE) {
      this.append(stream, raw, time, true);
      return;
    }
    open.raw = overwritten(open.raw + raw);
    open.width = -1;
    stream.style = after(raw, stream.style);
  }

  append(stream, raw, time, continues = false) {
    if (this.lines.length >= MOST_LINES) {
      this.full = true;
      stream.open = null;
      return;
    }
    for (; raw.length > PIECE; raw = raw.slice(PIECE)) {
      this.append(stream, raw.slice(0, PIECE), time, continues);
      continues = true;
    }
    // What a carriage return has overwritten may have set colours, which stay.
    const kept = raw.includes('\r') ? overwritten(raw) : raw;
    const style = kept === raw ? stream.style : after(raw.slice(0, raw.length - kept.length), stream.style);
    const line = { raw: kept, style, time, number: continues ? 0 : ++this.numbers, section: this.section, head: null, width: -1 };
    stream.style = after(kept, style);
    stream.open = line;
    this.lines.push(line);
  }
}

// width returns the length of a line as it is seen.
export function width(line) {
  if (line.width < 0) line.width = plain(line.raw).length;
  return line.width;
}

// duration returns the seconds of a section for people.
export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  const two = (n) => String(n).padStart(2, '0');
  return s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${two(Math.floor(s / 60))}:${two(s % 60)}`;
}

// write puts the text of a line into an element, coloured, with links and what is searched for; never as markup.
export function write(element, line, { from = 0, to = Infinity, find = '' } = {}) {
  const parts = segments(line.raw, line.style);
  const marks = find ? matches(parts.map((p) => p.text).join(''), find) : [];
  let at = 0;
  for (const { text, style } of parts) {
    const begin = Math.max(from, at);
    const end = Math.min(to, at + text.length);
    if (begin < end) {
      const box = dress(style);
      if (box) element.append(box);
      cut(box || element, text.slice(begin - at, end - at), begin, marks);
    }
    at += text.length;
  }
}

function matches(text, find) {
  const out = [];
  const low = text.toLowerCase();
  for (let at = 0; (at = low.indexOf(find, at)) >= 0 && out.length < 500; at += find.length) out.push([at, at + find.length]);
  return out;
}

// cut writes text, which begins at a column, with its links and marks.
function cut(element, text, column, marks) {
  let from = 0;
  if (text.includes('://')) {
    for (const m of text.matchAll(LINK)) {
      const address = m[0].replace(/[.,;:!?)\]]+$/, '');
      if (!URL.canParse(address)) continue;
      paint(element, text.slice(from, m.index), column + from, marks);
      const a = document.createElement('a');
      a.href = address;
      a.rel = 'noopener noreferrer nofollow';
      a.target = '_blank';
      paint(a, address, column + m.index, marks);
      element.append(a);
      from = m.index + address.length;
    }
  }
  paint(element, text.slice(from), column + from, marks);
}

function paint(element, text, column, marks) {
  let from = 0;
  for (const [begin, end] of marks) {
    const a = Math.max(from, begin - column);
    const b = Math.min(text.length, end - column);
    if (a >= b) continue;
    if (a > from) element.append(text.slice(from, a));
    const mark = document.createElement('mark');
    mark.textContent = text.slice(a, b);
    element.append(mark);
    from = b;
  }
  if (from < text.length) element.append(text.slice(from));
}

// dress returns an element for text of a style, or null for plain text.
function dress(style) {
  if (style === PLAIN) return null;
  let { fg, bg } = style;
  if (style.inverse) [fg, bg] = [bg || 'ground', fg || 'text'];
  const box = document.createElement('span');
  const names = ['bold', 'dim', 'italic', 'underline', 'strike', 'hidden'].filter((n) => style[n]).map((n) => 'ansi-' + n);
  if (fg.startsWith('#')) box.style.color = fg; else if (fg) names.push('ansi-' + fg);
  if (bg.startsWith('#')) box.style.backgroundColor = bg; else if (bg) names.push('ansi-on-' + bg);
  if (!names.length && !box.style.length) return null;
  box.className = names.join(' ');
  return box;
}

// LogView draws the log into an element: see log.html for what is in it.
export class LogView {
  constructor(root) {
    this.root = root;
    this.address = root.dataset.raw;
    this.live = root.dataset.live === 'true';
    this.parser = new LogParser();
    this.list = root.querySelector('.log-list');
    this.space = root.querySelector('.log-space');
    this.rowBox = root.querySelector('.log-rows');
    this.note = root.querySelector('.log-note');
    this.rowLine = []; // line of each row that is not folded away
    this.rowFrom = []; // column at which it begins
    this.seen = 0; // lines that have rows
    this.widest = 0;
    this.drawn = new Map();
    this.wrap = false;
    this.stamps = false;
    this.follow = this.live;
    this.find = '';
    this.hits = [];
    this.hit = -1;
    this.selected = [0, 0];
    this.offset = 0;
    this.stop = new AbortController();
    this.listen();
    this.loaded = this.load();
  }

  close() {
    this.stop.abort();
  }

  // load fetches the log, and what is added to it while the job runs.
  async load() {
    const signal = this.stop.signal;
    for (let pause = 500; !signal.aborted;) {
      try {
        const more = await this.fetch(signal);
        pause = 500;
        if (!more) break;
        await new Promise((done) => setTimeout(done, 200)); // what comes meanwhile comes together
      } catch (err) {
        if (signal.aborted) return;
        this.say(`The log could not be read: ${err.message}. Trying again.`);
        await new Promise((done) => setTimeout(done, pause));
        pause = Math.min(pause * 2, 10_000);
      }
    }
    if (signal.aborted) return;
    this.live = false;
    this.parser.end();
    this.changed();
    this.root.classList.add('log-complete');
    if (this.full()) this.say('This log is too large to be shown as a whole. All of it is in the raw log.');
    else if (this.missing) this.say('The log is not on this host, or not any more. GitLab has what was sent to it.');
    else if (!this.parser.lines.length) this.say('The log is empty.');
  }

  full() {
    return this.parser.full || this.offset >= MOST_BYTES;
  }

  // fetch reads on from where the log is known, and returns if there may be more later.
  async fetch(signal) {
    const from = this.offset;
    const answer = await fetch(`${this.address}?wait=1`, { headers: { Range: `bytes=${from}-` }, signal, cache: 'no-store' });
    const live = answer.headers.get('X-Log') === 'live';
    if (answer.status === 204 || answer.status === 416) return live;
    if (answer.status === 404) {
      this.missing = true;
      return false;
    }
    if (answer.status !== 206 && !(answer.status === 200 && from === 0)) throw new Error(`the server answered ${answer.status}`);
    this.say('');
    const reader = answer.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return live;
      for (let at = 0; at < value.length; at += 65536) {
        const begun = performance.now();
        this.parser.push(value.subarray(at, at + 65536));
        this.offset += Math.min(65536, value.length - at);
        this.changed();
        if (performance.now() - begun > 8 || at % 524288 === 0) await breath();
      }
      if (this.full()) {
        await reader.cancel();
        return false;
      }
    }
  }

  say(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
  }

  // changed draws what is new, once in a frame.
  changed() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.extend();
      this.draw();
      if (this.anchor) this.toAnchor();
    });
  }

  hiddenLine(line) {
    for (let s = line.section; s; s = s.parent) if (s.folded) return true;
    return false;
  }

  // extend gives rows to the lines that have none yet.
  extend() {
    const { lines } = this.parser;
    const columns = this.wrap ? this.columns() : Infinity;
    for (; this.seen < lines.length; this.seen++) {
      const line = lines[this.seen];
      if (line.section && this.hiddenLine(line)) continue;
      for (let from = 0; from === 0 || from < width(line); from += columns) {
        this.rowLine.push(this.seen);
        this.rowFrom.push(from);
        if (!this.wrap) break;
      }
    }
    // The last line may have been continued since it was seen.
    for (let i = Math.max(0, lines.length - 4); i < lines.length; i++) {
      this.drawn.get(i * 4096)?.remove();
      this.drawn.delete(i * 4096);
    }
    // So may a section have ended whose heading is in sight.
    for (const [key, row] of this.drawn) {
      const head = lines[row.dataset.line]?.head;
      if (!head?.end || head.quiet || row.lastChild.className === 'log-took') continue;
      row.remove();
      this.drawn.delete(key);
    }
  }

  columns() {
    return Math.max(20, Math.floor((this.list.clientWidth - this.gutter()) / this.cell()) - 1);
  }

  cell() {
    if (!this.cellWidth) {
      const probe = document.createElement('span');
      probe.textContent = '0'.repeat(100);
      this.rowBox.append(probe);
      this.cellWidth = probe.getBoundingClientRect().width / 100 || 8;
      probe.remove();
    }
    return this.cellWidth;
  }

  gutter() {
    return (Math.max(4, String(this.parser.numbers).length) + 2 + (this.stamps ? 14 : 0)) * this.cell();
  }

  // arrange makes the rows anew, and keeps the line at the top where it is.
  arrange() {
    const top = this.rowLine[Math.floor(this.list.scrollTop / ROW)] ?? 0;
    this.rowLine = [];
    this.rowFrom = [];
    this.seen = 0;
    this.clear();
    this.extend();
    this.size();
    if (!this.follow) this.list.scrollTop = this.rowOf(top) * ROW;
    this.draw();
  }

  clear() {
    for (const row of this.drawn.values()) row.remove();
    this.drawn.clear();
  }

  // rowOf returns the first row of a line, or that before which it would be.
  rowOf(line) {
    let low = 0;
    let high = this.rowLine.length;
    while (low < high) {
      const mid = (low + high) >> 1;
      if (this.rowLine[mid] < line) low = mid + 1; else high = mid;
    }
    return low;
  }

  size() {
    const rows = this.rowLine.length + (this.live && this.parser.partial() ? 1 : 0);
    if (rows !== this.rows) this.space.style.height = `${rows * ROW}px`;
    this.rows = rows;
    this.root.style.setProperty('--log-digits', Math.max(4, String(this.parser.numbers).length));
  }

  // draw shows the rows that are in sight, and a few around them.
  draw() {
    this.size();
    if (this.follow && this.live) this.list.scrollTop = this.rows * ROW;
    const first = Math.max(0, Math.floor(this.list.scrollTop / ROW) - 10);
    const last = Math.min(this.rows, first + Math.ceil(this.list.clientHeight / ROW) + 20);
    const want = new Map();
    for (let r = first; r < last; r++) {
      const at = r < this.rowLine.length ? this.rowLine[r] * 4096 + Math.min(4095, r - this.firstRow(r)) : -1;
      want.set(at, r);
    }
    for (const [key, row] of this.drawn) {
      if (want.has(key) && key >= 0) continue;
      row.remove();
      this.drawn.delete(key);
    }
    for (const [key, r] of want) {
      let row = this.drawn.get(key);
      if (!row) {
        row = key < 0 ? this.unfinished() : this.row(r);
        this.drawn.set(key, row);
        this.rowBox.append(row);
      }
      row.style.top = `${r * ROW}px`;
    }
    if (!this.wrap) this.widen(first, last);
  }

  firstRow(r) {
    while (r > 0 && this.rowLine[r - 1] === this.rowLine[r] && this.rowFrom[r] > 0) r--;
    return r;
  }

  widen(first, last) {
    let widest = this.widest;
    for (let r = first; r < Math.min(last, this.rowLine.length); r++) widest = Math.max(widest, width(this.parser.lines[this.rowLine[r]]));
    if (widest === this.widest) return;
    this.widest = widest;
    this.space.style.minWidth = `${Math.ceil((widest + 4) * this.cell() + this.gutter())}px`;
  }

  unfinished() {
    const row = document.createElement('div');
    row.className = 'log-row';
    const text = document.createElement('span');
    text.className = 'log-text';
    write(text, { raw: this.parser.partial(), style: PLAIN });
    row.append(document.createElement('a'), text);
    row.firstChild.className = 'log-number';
    return row;
  }

  // row makes the element of a row.
  row(r) {
    const index = this.rowLine[r];
    const line = this.parser.lines[index];
    const from = this.rowFrom[r];
    const row = document.createElement('div');
    row.className = 'log-row';
    row.dataset.line = index;
    const number = document.createElement('a');
    number.className = 'log-number';
    if (line.number && from === 0) {
      number.href = `#L${line.number}`;
      number.textContent = line.number;
      number.setAttribute('aria-label', `Line ${line.number}`);
      number.tabIndex = -1;
      if (line.number >= this.selected[0] && line.number <= this.selected[1]) row.classList.add('log-selected');
    }
    row.append(number);
    if (this.stamps) {
      const time = document.createElement('span');
      time.className = 'log-time';
      time.textContent = from === 0 ? line.time.slice(11, 23) : '';
      time.title = line.time;
      row.append(time);
    }
    const text = document.createElement('span');
    text.className = 'log-text';
    if (line.head && from === 0) this.heading(row, line.head);
    const raw = line.head && width(line) === 0 ? { raw: line.head.name, style: PLAIN } : line;
    write(text, raw, { from, to: this.wrap ? from + this.columns() : Infinity, find: this.find });
    row.append(text);
    if (line.head && from === 0) this.took(row, line.head);
    if (index === this.hits[this.hit]) row.classList.add('log-hit');
    return row;
  }

  heading(row, section) {
    row.classList.add('log-section');
    const fold = document.createElement('button');
    fold.type = 'button';
    fold.className = 'log-fold';
    fold.setAttribute('aria-expanded', String(!section.folded));
    fold.setAttribute('aria-label', `${section.folded ? 'Unfold' : 'Fold'} section ${section.name}`);
    row.append(fold);
  }

  took(row, section) {
    if (section.quiet || !section.end) return;
    const took = document.createElement('span');
    took.className = 'log-took';
    took.textContent = duration(section.end - section.start);
    row.append(took);
  }

  listen() {
    const signal = this.stop.signal;
    const on = (target, type, f, more = {}) => target?.addEventListener(type, f, { signal, ...more });
    on(this.list, 'scroll', () => this.scrolled(), { passive: true });
    on(this.list, 'click', (e) => this.clicked(e));
    on(this.root.querySelector('.log-bar'), 'click', (e) => this.pressed(e.target.closest('[data-do]')?.dataset.do));
    const search = this.root.querySelector('.log-search');
    on(search, 'input', () => this.search(search.value));
    on(search, 'keydown', (e) => {
      if (e.key === 'Enter') { e.preventDefault(); this.step(e.shiftKey ? -1 : 1); }
      if (e.key === 'Escape') { search.value = ''; this.search(''); this.list.focus(); }
    });
    on(document, 'keydown', (e) => this.key(e), { capture: true });
    on(window, 'hashchange', () => this.readAnchor());
    const sizes = new ResizeObserver(() => { if (this.wrap) this.arrange(); else this.changed(); });
    sizes.observe(this.list);
    signal.addEventListener('abort', () => sizes.disconnect());
    this.readAnchor();
    this.show();
  }

  scrolled() {
    const end = this.list.scrollHeight - this.list.clientHeight - this.list.scrollTop < ROW;
    if (this.live && this.follow && !end && this.list.scrollTop < (this.lastTop ?? 0)) this.setFollow(false);
    else if (this.live && !this.follow && end && this.list.scrollTop > (this.lastTop ?? 0)) this.setFollow(true);
    this.lastTop = this.list.scrollTop;
    this.changed();
  }

  setFollow(on) {
    this.follow = on;
    this.show();
    if (on) this.list.scrollTop = this.list.scrollHeight;
    this.changed();
  }

  // show makes the buttons say what is on.
  show() {
    for (const [name, on] of [['follow', this.follow], ['wrap', this.wrap], ['times', this.stamps]]) {
      this.root.querySelector(`[data-do=${name}]`)?.setAttribute('aria-pressed', String(on));
    }
    this.list.setAttribute('aria-live', this.live && this.follow ? 'polite' : 'off');
    this.root.classList.toggle('log-wrap', this.wrap);
  }

  pressed(name) {
    if (name === 'follow') this.setFollow(!this.follow);
    if (name === 'wrap') { this.wrap = !this.wrap; this.space.style.minWidth = ''; this.widest = 0; this.show(); this.arrange(); }
    if (name === 'times') { this.stamps = !this.stamps; this.widest = 0; this.show(); this.arrange(); }
    if (name === 'fold') {
      const fold = this.parser.sections.some((s) => !s.folded);
      for (const s of this.parser.sections) s.folded = fold;
      this.arrange();
    }
    if (name === 'next') this.step(1);
    if (name === 'previous') this.step(-1);
    if (name === 'top') { this.setFollow(false); this.list.scrollTop = 0; }
    if (name === 'end') this.list.scrollTop = this.list.scrollHeight;
  }

  key(e) {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest?.('input, textarea, select, [contenteditable]')) return;
    if (e.key === '/') { e.preventDefault(); e.stopImmediatePropagation(); this.root.querySelector('.log-search').focus(); }
    else if (e.key === 'f') this.setFollow(!this.follow);
    else if (e.key === 'w') this.pressed('wrap');
    else if (e.key === 'n' && this.find) this.step(1);
    else if (e.key === 'N' && this.find) this.step(-1);
  }

  clicked(e) {
    const row = e.target.closest('.log-row');
    if (!row) return;
    const line = this.parser.lines[row.dataset.line];
    const number = e.target.closest('.log-number');
    if (number && line) {
      e.preventDefault();
      const from = e.shiftKey && this.selected[0] ? this.selected[0] : line.number;
      this.select(Math.min(from, line.number), Math.max(from, line.number));
      history.replaceState(history.state, '', from === line.number ? `#L${from}` : `#L${this.selected[0]}-${this.selected[1]}`);
      return;
    }
    if (line?.head && !e.target.closest('a') && !String(getSelection())) {
      line.head.folded = !line.head.folded;
      const focused = document.activeElement?.classList.contains('log-fold');
      this.arrange();
      if (focused) this.drawn.get(row.dataset.line * 4096)?.querySelector('.log-fold')?.focus({ preventScroll: true });
    }
  }

  select(from, to) {
    this.selected = [from, to];
    this.clear();
    this.draw();
  }

  readAnchor() {
    const m = /^#L(\d+)(?:-L?(\d+))?$/.exec(location.hash);
    if (!m) return;
    this.anchor = [+m[1], +(m[2] || m[1])];
    this.follow = false;
    this.toAnchor();
  }

  toAnchor() {
    const [from, to] = this.anchor;
    if (this.parser.numbers < from) return;
    this.anchor = null;
    this.select(from, to);
    this.go(this.parser.lines.findIndex((l) => l.number === from));
  }

  // go brings a line into sight, and unfolds what it is in.
  go(index) {
    const line = this.parser.lines[index];
    if (!line) return;
    if (this.hiddenLine(line)) {
      for (let s = line.section; s; s = s.parent) s.folded = false;
      this.arrange();
    }
    if (this.follow) this.setFollow(false);
    this.list.scrollTop = Math.max(0, this.rowOf(index) * ROW - this.list.clientHeight / 3);
    this.clear();
    this.draw();
  }

  // search looks for text in all lines, a little at a time.
  async search(text) {
    const find = text.toLowerCase();
    this.find = find;
    this.hits = [];
    this.hit = -1;
    let begun = performance.now();
    for (let i = 0; find && i < this.parser.lines.length; i++) {
      const line = this.parser.lines[i];
      if (line.raw && plain(line.raw).toLowerCase().includes(find)) this.hits.push(i);
      if (i % 512 === 0 && performance.now() - begun > 12) {
        await breath();
        begun = performance.now();
        if (this.find !== find) return;
      }
    }
    this.count();
    this.clear();
    if (this.hits.length) this.step(1); else this.draw();
  }

  step(by) {
    if (!this.hits.length) return;
    if (this.hit < 0) {
      const top = this.rowLine[Math.floor(this.list.scrollTop / ROW)] ?? 0;
      this.hit = Math.max(0, this.hits.findIndex((l) => l >= top));
    } else this.hit = (this.hit + by + this.hits.length) % this.hits.length;
    this.count();
    this.go(this.hits[this.hit]);
  }

  count() {
    const out = this.root.querySelector('.log-count');
    out.textContent = !this.find ? '' : this.hits.length ? `${this.hit + 1} of ${this.hits.length}` : 'nothing found';
  }
}

// breath lets the browser draw before the work goes on.
function breath() {
  return new Promise((done) => { const c = new MessageChannel(); c.port1.onmessage = () => done(); setTimeout(() => c.port2.postMessage(0), 0); });
}

// mount shows the logs of a page. It can be called again when the page has changed.
export function mount() {
  for (const root of document.querySelectorAll('.log[data-raw]')) root.view ??= new LogView(root);
}

if (typeof document !== 'undefined') {
  mount();
  new MutationObserver(() => {
    if (document.querySelector('.log[data-raw]:not([data-mounted])')) mount();
  }).observe(document.body, { childList: true, subtree: true });
}
