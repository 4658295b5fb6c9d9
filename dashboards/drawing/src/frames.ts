/** Prometheus' answers as data frames, in the shape that Grafana's data source for Prometheus makes of them. */

import { createDataFrame, DataFrame, FieldConfig, FieldType } from '@grafana/data';

import { Answer, Series, Target } from './recorded';

/** The columns of a search for traces by what they show, as the data source for Tempo names and sets them. */
const TRACE_COLUMNS: Record<string, { name: string; config: FieldConfig }> = {
  'Trace ID': { name: 'traceID', config: { unit: 'string', custom: { width: 200 } } },
  'Start time': { name: 'startTime', config: { custom: { width: 200 } } },
  Service: { name: 'traceService', config: {} },
  Name: { name: 'traceName', config: {} },
  Duration: { name: 'traceDuration', config: { unit: 'ms', custom: { width: 120 } } },
};

export function framesOf(target: Target, answer: Answer): DataFrame[] {
  if (answer.kind === 'traces') {
    return [tableOf(target.refId, answer.rows)];
  }
  if (target.format === 'table') {
    return [tableOf(target.refId, answer.series.map((series) => rowOf(series, target.refId)))];
  }
  const frames = answer.series.map((series) => frameOf(series, target, answer.step));
  return target.format === 'heatmap' ? apart(frames) : frames;
}

function frameOf(series: Series, target: Target, step: number): DataFrame {
  const name = nameOf(series.metric, target.legendFormat);
  return createDataFrame({
    refId: target.refId,
    name,
    fields: [
      { name: 'Time', type: FieldType.time, config: { interval: step * 1000 }, values: series.values.map(([time]) => time * 1000) },
      {
        name: 'Value',
        type: FieldType.number,
        labels: series.metric,
        config: { displayNameFromDS: name },
        values: series.values.map(([, value]) => numberOf(value)),
      },
    ],
  });
}

/** A graph has a gap where a value is none. */
function numberOf(value: string): number | null {
  const number = Number(value.replace('Inf', 'Infinity'));
  return Number.isFinite(number) ? number : null;
}

function nameOf(labels: Record<string, string>, format?: string): string {
  if (format && format !== '__auto') {
    return format.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => labels[label] ?? '');
  }
  const { __name__: metric = '', ...others } = labels;
  const inside = Object.entries(others).map(([label, value]) => `${label}="${value}"`);
  return inside.length ? `${metric}{${inside.join(', ')}}` : metric || 'Value';
}

function rowOf(series: Series, refId: string): Record<string, string | number> {
  const [time, value] = series.values[series.values.length - 1];
  const { __name__: _, ...labels } = series.metric;
  return { Time: time * 1000, ...labels, [`Value #${refId}`]: numberOf(value) as number };
}

function tableOf(refId: string, rows: Array<Record<string, string | number>>): DataFrame {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const fields = names.map((name) => {
    const values = rows.map((row) => row[name] ?? null);
    const numeric = values.some((value) => typeof value === 'number');
    const type = name === 'Time' || name === 'Start time' ? FieldType.time : numeric ? FieldType.number : FieldType.string;
    const column = TRACE_COLUMNS[name];
    return column
      ? { name: column.name, type, config: { ...column.config, displayNameFromDS: name }, values }
      : { name, type, config: {}, values };
  });
  return createDataFrame({ refId, fields });
}

/** Buckets, each holding those below it, become buckets of their own, from the lowest `le` to the highest. */
function apart(frames: DataFrame[]): DataFrame[] {
  const bound = (frame: DataFrame) => Number(frame.fields[1].labels!.le.replace('+Inf', 'Infinity'));
  const sorted = [...frames].sort((a, b) => bound(a) - bound(b));
  return sorted.map((frame, index) => {
    const below = index ? new Map(sorted[index - 1].fields[0].values.map((time, i) => [time, sorted[index - 1].fields[1].values[i]])) : new Map();
    const [time, value] = frame.fields;
    const values = value.values.map((each, i) => Math.max(0, each - (below.get(time.values[i]) ?? 0)));
    const name = value.labels!.le;
    return { ...frame, name, fields: [time, { ...value, config: { displayNameFromDS: name }, values }] };
  });
}
