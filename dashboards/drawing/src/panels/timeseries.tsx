/** Graphs over time: Grafana's own component. Marks and exemplars are painted upon it, as Grafana's plugins do. */

import { GrafanaTheme2 } from '@grafana/data';
import { TimeSeries, UPlotConfigBuilder } from '@grafana/ui';
import uPlot from 'uplot';

import { Exemplar, Mark } from '../recorded';
import { theme, timeRange, timeZone } from '../theme';
import { PanelProps } from './props';

const HIDDEN = { displayMode: 'list', placement: 'bottom', showLegend: false, calcs: [] };

export function TimeSeriesPanel({ panel, frames, answers, width, height }: PanelProps) {
  const exemplars = answers.flatMap((answer) => answer.exemplars);
  const painted = new WeakSet<UPlotConfigBuilder>();
  const paint = (config: UPlotConfigBuilder) => {
    if (!painted.has(config)) {
      painted.add(config);
      config.addHook('draw', (plot) => paintMarks(plot, window.recorded.marks));
      config.addHook('draw', (plot) => paintExemplars(plot, exemplars, config.scaleKeys[1], theme));
    }
    return null;
  };
  return (
    <TimeSeries
      frames={frames}
      timeRange={timeRange}
      timeZone={timeZone}
      width={width}
      height={height}
      legend={panel.options?.legend ?? HIDDEN}
      options={panel.options}
    >
      {paint}
    </TimeSeries>
  );
}

/** A dashed line with a triangle at its foot, where an annotation is. */
export function paintMarks(plot: uPlot, marks: Mark[]): void {
  const { ctx, bbox } = plot;
  const size = 5 * uPlot.pxRatio;
  ctx.save();
  for (const mark of marks) {
    ctx.fillStyle = ctx.strokeStyle = mark.color;
    ctx.lineWidth = uPlot.pxRatio;
    for (const time of mark.times) {
      const x = Math.round(plot.valToPos(time * 1000, 'x', true));
      ctx.beginPath();
      ctx.setLineDash([5 * uPlot.pxRatio, 5 * uPlot.pxRatio]);
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.beginPath();
      ctx.moveTo(x, bbox.top + bbox.height);
      ctx.lineTo(x - size, bbox.top + bbox.height + size * 1.4);
      ctx.lineTo(x + size, bbox.top + bbox.height + size * 1.4);
      ctx.fill();
    }
  }
  ctx.restore();
}

/** A small diamond for each request that was remembered with its trace. */
function paintExemplars(plot: uPlot, exemplars: Exemplar[], scale: string, theme: GrafanaTheme2): void {
  const { ctx, bbox } = plot;
  const half = 4 * uPlot.pxRatio;
  ctx.save();
  ctx.fillStyle = theme.visualization.getColorByName('light-blue');
  for (const { timestamp, value } of exemplars) {
    const x = plot.valToPos(timestamp * 1000, 'x', true);
    const y = Math.max(bbox.top, plot.valToPos(Number(value), scale, true)); // one above the axis is shown at its end
    ctx.beginPath();
    ctx.moveTo(x, y - half);
    ctx.lineTo(x + half, y);
    ctx.lineTo(x, y + half);
    ctx.lineTo(x - half, y);
    ctx.fill();
  }
  ctx.restore();
}
