/** Single values: numbers, gauges and bars, by Grafana's own components. */

import { FieldDisplay, getDisplayValueAlignmentFactors, getFieldDisplayValues, VizOrientation } from '@grafana/data';
import { BarGauge, BigValue, Gauge, VizRepeater, VizRepeaterRenderValueProps } from '@grafana/ui';
import { ReactElement } from 'react';

import { theme, timeZone } from '../theme';
import { PanelProps } from './props';

type Drawn = VizRepeaterRenderValueProps<FieldDisplay, any>;
type Draw = (props: Drawn, options: any) => ReactElement;

function Values({ panel, frames, width, height, draw, sparkline }: PanelProps & { draw: Draw; sparkline: boolean }) {
  const options = panel.options ?? {};
  const getValues = () =>
    getFieldDisplayValues({
      fieldConfig: { defaults: {}, overrides: [], ...panel.fieldConfig },
      reduceOptions: { calcs: ['lastNotNull'], ...options.reduceOptions },
      replaceVariables: (value) => value,
      theme,
      data: frames,
      sparkline,
      timeZone,
    });
  return (
    <VizRepeater
      getValues={getValues}
      getAlignmentFactors={(values) => getDisplayValueAlignmentFactors(values)}
      renderValue={(props) => draw(props, options)}
      width={width}
      height={height}
      source={frames}
      itemSpacing={3}
      renderCounter={1}
      autoGrid={panel.type === 'stat'}
      orientation={options.orientation ?? VizOrientation.Auto}
      minVizHeight={panel.type === 'bargauge' ? options.minVizHeight ?? 16 : undefined}
      maxVizHeight={panel.type === 'bargauge' ? options.maxVizHeight ?? 300 : undefined}
    />
  );
}

export function StatPanel(props: PanelProps) {
  return <Values {...props} sparkline={(props.panel.options?.graphMode ?? 'area') !== 'none'} draw={bigValue} />;
}

export function GaugePanel(props: PanelProps) {
  return <Values {...props} sparkline={false} draw={gauge} />;
}

export function BarGaugePanel(props: PanelProps) {
  return <Values {...props} sparkline={false} draw={bar} />;
}

function bigValue({ value, width, height, count, alignmentFactors }: Drawn, options: any) {
  return (
    <BigValue
      value={value.display}
      count={count}
      sparkline={value.sparkline}
      colorMode={options.colorMode ?? 'value'}
      graphMode={options.graphMode ?? 'area'}
      justifyMode={options.justifyMode ?? 'auto'}
      textMode={options.textMode ?? 'auto'}
      text={options.text}
      alignmentFactors={alignmentFactors}
      disableWideLayout={options.wideLayout === false}
      width={width}
      height={height}
      theme={theme}
    />
  );
}

function gauge({ value, width, height }: Drawn, options: any) {
  return (
    <Gauge
      value={value.display}
      field={value.field}
      text={options.text}
      showThresholdLabels={options.showThresholdLabels ?? false}
      showThresholdMarkers={options.showThresholdMarkers ?? true}
      width={width}
      height={height}
      theme={theme}
    />
  );
}

function bar({ value, width, height, orientation, alignmentFactors, count }: Drawn, options: any) {
  return (
    <BarGauge
      value={value.display}
      field={value.field}
      display={value.view?.getFieldDisplayProcessor(value.colIndex!)}
      text={options.text}
      displayMode={options.displayMode ?? 'gradient'}
      showUnfilled={options.showUnfilled ?? true}
      valueDisplayMode={options.valueMode ?? 'color'}
      namePlacement={options.namePlacement ?? 'auto'}
      orientation={orientation}
      alignmentFactors={count > 1 ? alignmentFactors : undefined}
      itemSpacing={3}
      lcdCellWidth={12}
      isOverflow={false}
      width={width}
      height={height}
      theme={theme}
    />
  );
}
