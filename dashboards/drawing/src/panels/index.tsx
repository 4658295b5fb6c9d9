/** Which way each type of panel is drawn. */

import { ComponentType } from 'react';

import { HeatmapPanel, StatesPanel } from './cells';
import { LinesPanel } from './lines';
import { PanelProps } from './props';
import { TablePanel } from './table';
import { TextPanel, Words } from './text';
import { TimeSeriesPanel } from './timeseries';
import { BarGaugePanel, GaugePanel, StatPanel } from './values';

const DRAWN: Record<string, ComponentType<PanelProps>> = {
  timeseries: TimeSeriesPanel,
  stat: StatPanel,
  gauge: GaugePanel,
  bargauge: BarGaugePanel,
  table: TablePanel,
  heatmap: HeatmapPanel,
  'state-timeline': StatesPanel,
  'status-history': StatesPanel,
  logs: LinesPanel,
  text: TextPanel,
};

/** Draw a panel; where it has nothing to show it says what Grafana would say, and where it cannot be drawn, why. */
export function Content(props: PanelProps) {
  const { panel, frames, answers, width, height } = props;
  const Drawn = DRAWN[panel.type];
  if (!Drawn) {
    return <Words words={`A panel of the type ${panel.type} is not drawn here.`} width={width} height={height} />;
  }
  if (answers.length && answers.every((answer) => answer.note)) {
    return <Words words={answers[0].note} width={width} height={height} />;
  }
  const empty = !frames.some((frame) => frame.length) && !answers.some((answer) => answer.lines.length);
  if (empty && !['text', 'stat', 'gauge', 'bargauge'].includes(panel.type)) {
    return <Words words={panel.fieldConfig?.defaults.noValue ?? 'No data'} width={width} height={height} />;
  }
  return <Drawn {...props} />;
}
