/** Tables, by Grafana's own component. */

import { TableNG } from '@grafana/ui/unstable';

import { timeRange } from '../theme';
import { PanelProps } from './props';

export function TablePanel({ panel, frames, width, height }: PanelProps) {
  const options = panel.options ?? {};
  const data = frames[options.frameIndex ?? 0];
  return (
    <TableNG
      data={data}
      width={width}
      height={height}
      noHeader={options.showHeader === false}
      showTypeIcons={options.showTypeIcons}
      resizable
      initialSortBy={options.sortBy}
      cellHeight={options.cellHeight}
      frozenColumns={options.frozenColumns?.left}
      timeRange={timeRange}
      structureRev={1}
      fieldConfig={panel.fieldConfig as any}
      enableVirtualization={false}
    />
  );
}
