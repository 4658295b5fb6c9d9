/** What scripts/pictures.py recorded: a dashboard's JSON, and what its queries were answered. */

export interface Series {
  metric: Record<string, string>;
  values: Array<[number, string]>;
}

export interface Exemplar {
  labels: Record<string, string>;
  value: string;
  timestamp: number;
}

export interface Line {
  timestamp: number;
  level: string;
  line: string;
}

/** The answer to one query: series over time, one value each, lines of the log, or rows of a search for traces. */
export interface Answer {
  kind: 'matrix' | 'vector' | 'lines' | 'traces' | 'note';
  step: number;
  series: Series[];
  exemplars: Exemplar[];
  lines: Line[];
  rows: Array<Record<string, string | number>>;
  note: string;
}

export interface Mark {
  name: string;
  color: string;
  times: number[];
}

export interface Target {
  refId: string;
  legendFormat?: string;
  format?: string;
  instant?: boolean;
  hide?: boolean;
}

export interface GridPos {
  x: number;
  y: number;
  w: number;
  h: number;
}

export interface Panel {
  id: number;
  type: string;
  title: string;
  description?: string;
  gridPos: GridPos;
  targets?: Target[];
  fieldConfig?: { defaults: any; overrides: any[] };
  options?: any;
  transformations?: any[];
  transparent?: boolean;
  collapsed?: boolean;
}

export interface Dashboard {
  title: string;
  description: string;
  panels: Panel[];
}

export interface Recorded {
  dashboard: Dashboard;
  from: number;
  to: number;
  variables: Array<{ name: string; label: string; text: string }>;
  answers: Record<string, Record<string, Answer>>;
  marks: Mark[];
}

declare global {
  interface Window {
    recorded: Recorded;
  }
}
