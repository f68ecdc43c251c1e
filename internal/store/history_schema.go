package store

// historyTables makes a history. Times are Unix milliseconds, lengths milliseconds too.
//
// A job's id is the time of its end and a number, so that the order of ids is that of the ends, in every index too. What is searched or
// summed up is in columns; the whole is in records, so that a question about many jobs passes over small rows. The spans of a life that has
// ended are in past_spans once more, each life's in one text, so that thousands of lives are read at once.
const historyTables = `
CREATE TABLE jobs (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, runner TEXT NOT NULL, runner_name TEXT NOT NULL, executor TEXT NOT NULL,
  job INTEGER NOT NULL, name TEXT NOT NULL, project TEXT NOT NULL, project_id INTEGER NOT NULL, ref TEXT NOT NULL, user TEXT NOT NULL,
  tags TEXT NOT NULL, visibility TEXT NOT NULL, machine TEXT NOT NULL, set_name TEXT NOT NULL, batch TEXT NOT NULL,
  queued INTEGER NOT NULL, taken INTEGER NOT NULL, placed INTEGER NOT NULL, started INTEGER NOT NULL, ended INTEGER NOT NULL,
  state TEXT NOT NULL, reason TEXT NOT NULL, exit_code INTEGER NOT NULL, bill TEXT NOT NULL, search TEXT NOT NULL) STRICT;
CREATE INDEX jobs_runner ON jobs (runner);
CREATE INDEX jobs_runner_name ON jobs (runner_name);
CREATE INDEX jobs_project ON jobs (project);
CREATE INDEX jobs_machine ON jobs (machine) WHERE machine <> '';
CREATE INDEX jobs_batch ON jobs (batch) WHERE batch <> '';
CREATE INDEX jobs_state ON jobs (state);
CREATE INDEX jobs_reason ON jobs (reason) WHERE reason <> '';
CREATE INDEX jobs_ended ON jobs (ended, state, reason, runner);
CREATE INDEX jobs_bill ON jobs (id) WHERE bill <> '';
CREATE TABLE records (id INTEGER PRIMARY KEY, record BLOB NOT NULL, samples BLOB NOT NULL) STRICT;
CREATE VIRTUAL TABLE job_search USING fts5 (text, content = '', contentless_delete = 1, detail = 'none', tokenize = 'trigram');

CREATE TABLE waits (key TEXT PRIMARY KEY, placed INTEGER NOT NULL, wait INTEGER NOT NULL, runner TEXT NOT NULL) STRICT;
CREATE INDEX waits_placed ON waits (placed, wait, runner);

CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, kind TEXT NOT NULL, family TEXT NOT NULL, level TEXT NOT NULL, runner TEXT NOT NULL,
  job TEXT NOT NULL, machine TEXT NOT NULL, batch TEXT NOT NULL, text TEXT NOT NULL, took INTEGER NOT NULL) STRICT;
CREATE INDEX events_time ON events (time);
CREATE INDEX events_kind ON events (kind, time);
CREATE INDEX events_family ON events (family, time);
CREATE INDEX events_level ON events (level, time) WHERE level <> '';
CREATE INDEX events_runner ON events (runner, time) WHERE runner <> '';
CREATE INDEX events_job ON events (job, time) WHERE job <> '';
CREATE INDEX events_machine ON events (machine, time) WHERE machine <> '';
CREATE INDEX events_batch ON events (batch, time) WHERE batch <> '';

CREATE VIRTUAL TABLE event_search USING fts5 (text, content = '', contentless_delete = 1, detail = 'none', tokenize = 'trigram');

CREATE TABLE lives (
  id INTEGER PRIMARY KEY, pool TEXT NOT NULL, runner TEXT NOT NULL, machine TEXT NOT NULL, set_name TEXT NOT NULL,
  per_hour REAL NOT NULL, minimum INTEGER NOT NULL, step INTEGER NOT NULL, made INTEGER NOT NULL, gone INTEGER NOT NULL,
  UNIQUE (machine, pool, made)) STRICT;
CREATE INDEX lives_gone ON lives (gone, made, pool);
CREATE INDEX lives_made ON lives (made, gone, pool);
CREATE TABLE spans (
  life INTEGER NOT NULL, job TEXT NOT NULL, start INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, stop INTEGER NOT NULL,
  PRIMARY KEY (life, job, start, state)) STRICT, WITHOUT ROWID;
CREATE TABLE past_spans (life INTEGER PRIMARY KEY, states TEXT NOT NULL, leases TEXT NOT NULL) STRICT;
CREATE INDEX spans_job ON spans (job) WHERE job <> '';

CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE samples (series INTEGER NOT NULL, at INTEGER NOT NULL, value REAL NOT NULL, PRIMARY KEY (series, at)) STRICT, WITHOUT ROWID;
CREATE TABLE hours (
  series INTEGER NOT NULL, at INTEGER NOT NULL, n INTEGER NOT NULL, sum REAL NOT NULL, most REAL NOT NULL,
  PRIMARY KEY (series, at)) STRICT, WITHOUT ROWID;

CREATE TABLE paused (runner TEXT PRIMARY KEY, by TEXT NOT NULL, since INTEGER NOT NULL) STRICT`
