/**
 * Heat maps, state timelines and status histories. Grafana's own panels for these are not published as components:
 * these are plots of the same answers, with Grafana's axes, its uPlot, and the colours that the JSON asks for.
 */

import { DataFrame, FieldColorModeId, formattedValueToString, getFieldDisplayName, getFieldSeriesColor, getValueFormat } from '@grafana/data';
import { AxisPlacement, ScaleDirection, ScaleOrientation } from '@grafana/schema';
import { measureText, UPlotChart, UPlotConfigBuilder, VizLayout, VizLegend } from '@grafana/ui';
import * as chromatic from 'd3-scale-chromatic';
import uPlot from 'uplot';

import { theme, timeRange, timeZone } from '../theme';
import { PanelProps } from './props';
import { paintMarks } from './timeseries';

interface Cell {
  from: number;
  to: number;
  color: string;
  text: string;
}

interface Row {
  name: string;
  cells: Cell[];
}

interface Key {
  label: string;
  color: string;
}

const GAP = 1;
const LABEL = 14; // how high a name is

export function HeatmapPanel(props: PanelProps) {
  const { panel, frames } = props;
  const numbers = frames.flatMap((frame) => frame.fields[1].values.filter((value) => value !== null) as number[]);
  const { min: low, max: high } = { min: 0, max: Math.max(...numbers, 0), ...panel.options?.color };
  const paint = scheme(panel.options?.color ?? {});
  const counted = getValueFormat(panel.options?.cellValues?.unit ?? 'short');
  const hidden = panel.options?.filterValues?.le ?? 1e-9;
  const rows = rowsOf(frames, (_, value) => {
    const share = high > low ? (value - low) / (high - low) : 0;
    return Math.abs(value) < hidden ? null : { color: paint(Math.min(1, Math.max(0, share))), text: '' };
  });
  const shares = [0.2, 0.4, 0.6, 0.8, 1];
  const keys = shares.map((share) => ({
    label: formattedValueToString(counted(low + share * (high - low))),
    color: paint(share),
  }));
  const bound = getValueFormat(panel.options?.yAxis?.unit ?? 'short');
  const named = rows.map((row) => ({ ...row, name: Number.isNaN(Number(row.name)) ? row.name : formattedValueToString(bound(Number(row.name))) }));
  return <Cells {...props} rows={named} keys={panel.options?.legend?.show === false ? [] : keys} share={0.98} />;
}

export function StatesPanel(props: PanelProps) {
  const { panel, frames } = props;
  const keys = new Map<string, Key>();
  const rows = rowsOf(frames, (frame, value) => {
    const field = frame.fields[1];
    const shown = field.display!(value);
    const byValue = field.config.color?.mode === FieldColorModeId.Thresholds || shown.color;
    const color = byValue ? shown.color! : getFieldSeriesColor(field, theme).color;
    const label = formattedValueToString(shown);
    keys.set(label, { label, color });
    return { color, text: panel.options?.showValue === 'never' ? '' : label };
  });
  const merged = panel.type === 'state-timeline' && panel.options?.mergeValues !== false;
  const shown = merged ? rows.map((row) => ({ ...row, cells: together(row.cells) })) : rows; // the first one is on top
  const listed = panel.options?.legend?.showLegend === false || keys.size > 12 ? [] : [...keys.values()];
  return <Cells {...props} rows={shown.reverse()} keys={listed} share={panel.options?.rowHeight ?? 0.9} />;
}

function scheme(color: any): (share: number) => string {
  if (color.mode === 'opacity') {
    const fill = theme.visualization.getColorByName(color.fill ?? 'dark-orange');
    return (share) => uPlotAlpha(fill, share ** (color.exponent ?? 0.5));
  }
  const interpolate = (chromatic as any)[`interpolate${color.scheme ?? 'Oranges'}`];
  const steps = Math.max(2, color.steps ?? 64);
  const turned = Boolean(color.reverse) !== (theme.isDark && SEQUENTIAL.includes(color.scheme ?? 'Oranges'));
  return (share) => {
    const step = Math.round(share * (steps - 1)) / (steps - 1);
    return interpolate(turned ? 1 - step : step);
  };
}

/** Schemes that begin at white: Grafana turns them on a dark page. */
const SEQUENTIAL = [
  ...['Blues', 'Greens', 'Greys', 'Oranges', 'Purples', 'Reds', 'BuGn', 'BuPu', 'GnBu', 'OrRd', 'PuBuGn', 'PuBu', 'PuRd'],
  ...['RdPu', 'YlGnBu', 'YlGn', 'YlOrBr', 'YlOrRd'],
];

function uPlotAlpha(color: string, alpha: number): string {
  return `${color}${Math.round(255 * alpha).toString(16).padStart(2, '0')}`;
}

function rowsOf(frames: DataFrame[], drawn: (frame: DataFrame, value: number) => { color: string; text: string } | null): Row[] {
  return frames.map((frame) => {
    const [times, field] = frame.fields;
    const step = times.config.interval ?? 15_000;
    const cells = times.values.flatMap((time: number, index: number) => {
      const value = field.values[index];
      const cell = value === null ? null : drawn(frame, value);
      return cell ? [{ from: time, to: time + step, ...cell }] : [];
    });
    return { name: getFieldDisplayName(field, frame, frames), cells };
  });
}

function together(cells: Cell[]): Cell[] {
  const merged: Cell[] = [];
  for (const cell of cells) {
    const last = merged[merged.length - 1];
    if (last && last.text === cell.text && last.color === cell.color && last.to >= cell.from) {
      last.to = cell.to;
    } else {
      merged.push({ ...cell });
    }
  }
  return merged;
}

function Cells({ rows, keys, share, width, height }: PanelProps & { rows: Row[]; keys: Key[]; share: number }) {
  const config = configOf(rows, share, height);
  const items = keys.map(({ label, color }) => ({ label, color, yAxis: 1 }));
  const legend = items.length ? (
    <VizLayout.Legend placement="bottom">
      <VizLegend placement="bottom" items={items} displayMode={'list' as any} />
    </VizLayout.Legend>
  ) : null;
  const range = [timeRange.from.valueOf(), timeRange.to.valueOf()];
  return (
    <VizLayout width={width} height={height} legend={legend as any}>
      {(w, h) => <UPlotChart config={config} data={[range, [0, rows.length]]} width={w} height={h} />}
    </VizLayout>
  );
}

function configOf(rows: Row[], share: number, height: number): UPlotConfigBuilder {
  const config = new UPlotConfigBuilder(timeZone);
  const from = timeRange.from.valueOf();
  const to = timeRange.to.valueOf();
  config.addScale({ scaleKey: 'x', isTime: true, orientation: ScaleOrientation.Horizontal, direction: ScaleDirection.Right, range: () => [from, to] });
  config.addScale({ scaleKey: 'y', orientation: ScaleOrientation.Vertical, direction: ScaleDirection.Up, range: () => [0, rows.length] });
  config.addAxis({ scaleKey: 'x', isTime: true, placement: AxisPlacement.Bottom, timeZone, theme, grid: { show: false } });
  const every = Math.ceil((rows.length * LABEL) / height); // labels that would lie upon each other help nobody
  config.addAxis({
    scaleKey: 'y',
    placement: AxisPlacement.Left,
    theme,
    grid: { show: false },
    ticks: { show: false },
    splits: rows.map((_, index) => index + 0.5),
    values: rows.map(({ name }, index) => (index % every ? '' : name)),
    size: Math.max(...rows.map(({ name }) => measureText(name, 12).width)) + 18,
  });
  config.addSeries({ scaleKey: 'y', theme, pathBuilder: () => null, pointsBuilder: () => undefined, show: true } as any);
  config.addHook('draw', (plot) => rows.forEach((row, index) => paintRow(plot, row, index, share)));
  config.addHook('draw', (plot) => paintMarks(plot, window.recorded.marks));
  return config;
}

function paintRow(plot: uPlot, row: Row, index: number, share: number): void {
  const { ctx } = plot;
  const middle = plot.valToPos(index + 0.5, 'y', true);
  const tall = Math.abs(plot.valToPos(index, 'y', true) - plot.valToPos(index + 1, 'y', true)) * share - GAP;
  ctx.save();
  ctx.beginPath();
  ctx.rect(plot.bbox.left, plot.bbox.top, plot.bbox.width, plot.bbox.height);
  ctx.clip();
  ctx.textBaseline = 'middle';
  ctx.font = `${12 * uPlot.pxRatio}px Inter`;
  for (const cell of row.cells) {
    const left = plot.valToPos(cell.from, 'x', true);
    const wide = plot.valToPos(cell.to, 'x', true) - left;
    ctx.fillStyle = cell.color;
    ctx.fillRect(left, middle - tall / 2, Math.max(1, wide - GAP), tall);
    if (cell.text && ctx.measureText(cell.text).width + 8 < wide && tall > 12) {
      ctx.fillStyle = theme.colors.getContrastText(cell.color);
      ctx.fillText(cell.text, left + 4, middle);
    }
  }
  ctx.restore();
}
