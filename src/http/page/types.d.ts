// The JSON of the API, as far as the page reads it. For the type checker only: it is not served.

export type Child = Node | string | number | boolean | null | undefined | Child[];
export type Attributes = Record<string, string | number | boolean | null | undefined>;

export type Level = "REPEAT" | "ESCALATE" | "PERMANENT_FIX";

/** A value that is null if it is not known because the store is unavailable. */
export type Maybe<T> = T | null | undefined;

export interface Signature {
  alert_name: string;
  service: string;
  namespace: string;
  error_type: string;
}

export interface Frequency {
  count_1h: Maybe<number>;
  count_24h: Maybe<number>;
  count_7d: Maybe<number>;
  count_30d: Maybe<number>;
  first_seen: Maybe<string>;
  last_seen: Maybe<string>;
  auto_repair_count: Maybe<number>;
  permanent_fix_applied: Maybe<boolean>;
  escalation_level: Maybe<Level>;
  regressed: Maybe<boolean>;
  rule?: Maybe<string>;
  because?: Maybe<string>;
  exact?: boolean;
  degraded: boolean;
  as_of?: Maybe<string>;
}

export interface Firing {
  episodes: number;
  since: string;
}

export interface Row {
  anomaly_key: string;
  signature: Maybe<Signature>;
  frequency: Frequency;
  fixed_at?: Maybe<string>;
  firing?: Maybe<Firing>;
  series?: Maybe<number[]>;
}

export interface List {
  anomalies: Row[];
  total: number;
  total_exact?: boolean;
  next_cursor: string | null;
  as_of: string;
  complete: boolean;
  reason?: "loading" | "denied" | "behind";
  loaded?: number;
  ranking: "exact" | "approximate";
  degraded: boolean;
}

export interface Facet {
  value: string | null;
  anomalies: number;
}

export interface Summary {
  anomalies: number;
  levels: Record<Level | "none", number>;
  fixed: Maybe<number>;
  regressed: Maybe<number>;
  firing: Maybe<number>;
  by: { namespace?: Facet[] };
}

export interface Ready {
  status: "ready" | "degraded" | "replaying";
  store: "embedded" | "redis";
  degraded_since?: string;
  cause?: string;
  spool: { operations: number; usable?: boolean };
}

export interface Session {
  /** True if no token is required. */
  open: boolean;
  name: string | null;
  scopes: string[];
  expires_at: string | null;
}

export interface Fix {
  fix_description: string | null;
  fixed_by: string | null;
  fixed_at: string;
  expires_at: string;
}

export interface Action {
  action: string;
  total: number;
  success: number;
  success_rate: number;
}

export interface Advice extends Action {
  should_skip: boolean;
}

export interface Anomaly extends Row {
  metadata: Maybe<Record<string, unknown>>;
  known_since: Maybe<string>;
  permanent_fix: Maybe<Fix>;
  repairs: Maybe<Action[]>;
}

export interface Bucket {
  start: string;
  count: number;
  /** Null if the 24 hours begin before the events that are kept. */
  count_24h: number | null;
  exact?: boolean;
}

export interface HistoryEvent {
  at: string;
  event: string;
  by?: string | null;
  action?: string;
  success?: boolean;
}

export interface History {
  from: string;
  to: string;
  step_seconds: number;
  total: number;
  buckets: Bucket[];
  events: HistoryEvent[];
  bands: { level: Level; condition: string }[];
}

export interface AuditEntry extends HistoryEvent {
  token: string | null;
  request_id: string | null;
  fix_description?: string;
  reason?: string | null;
}

/** An answer, or the reason why there is none. */
export type Outcome<T> = { ok: T } | { problem: import("./api.js").Problem };

export interface ListData {
  list: List;
  levels: Summary | null;
  namespaces: Summary | null;
}

export interface AnomalyData {
  anomaly: Anomaly;
  history: Outcome<History>;
  audit: Outcome<{ entries: AuditEntry[] }>;
  /** In the order of the anomaly's repairs. */
  advice: Outcome<Advice>[];
}

export interface AnomalyOptions {
  /** The window of the history. */
  window: string;
  /** The list to go back to. */
  back: string;
  /** The width of the picture, in pixels. */
  width: number;
  /** True if no token is required. */
  isOpen: boolean;
  canOperate: boolean;
}

/** The data of a view, and the query that names it. */
export interface Known<T> {
  query: string;
  data: T;
  /** The time of the answer by the service's clock. */
  at: Date;
}

export interface State {
  session: Session | null;
  ready: Ready | null;
  list: Known<ListData> | null;
  anomaly: Known<AnomalyData> | null;
  /** The problem of the last read. */
  problem: import("./api.js").Problem | null;
  /** The problem for which the last token was refused. */
  refusal: import("./api.js").Problem | null;
  needsToken: boolean;
  failures: number;
  /** Maximum number of namespaces with a chip. */
  namespaces: number;
  /** The list to go back to. */
  back: string;
  /** The position to scroll to once the view is shown; null keeps the present one. */
  scroll: number | null;
}

/** The anomaly that a dialog is about. */
export interface Subject {
  key: string;
  name: string;
  /** The name of the reader, if it is known. */
  who: string | null;
  /** True if no token is required. */
  isOpen: boolean;
  /** Called after a change, with the status of its answer. */
  done: (status: number) => void;
}
