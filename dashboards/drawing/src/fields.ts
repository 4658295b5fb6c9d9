/** Field configuration as the panels of Grafana apply it: what a dashboard's JSON says, over the defaults of the panel. */

import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  DataFrame,
  DataTransformerConfig,
  FieldConfigOptionsRegistry,
  FieldConfigPropertyItem,
  FieldConfigSource,
  GrafanaTheme2,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
} from '@grafana/data';
import { lastValueFrom } from 'rxjs';

import { Panel } from './recorded';

const STANDARD = [
  ...['displayName', 'unit', 'min', 'max', 'fieldMinMax', 'decimals', 'noValue', 'color', 'thresholds', 'mappings'],
  ...['links', 'filterable', 'description'],
];
const BY_SERIES = ['timeseries', 'barchart', 'piechart', 'histogram'];

standardTransformersRegistry.setInit(() =>
  [...new Set(Object.values(standardTransformers))].map((transformation) => ({
    id: transformation.id,
    name: transformation.name,
    transformation,
    editor: () => null,
    imageDark: '',
    imageLight: '',
  }))
);

/** Transform and configure a panel's frames; what they show afterwards is the panel's to draw. */
export async function configured(panel: Panel, frames: DataFrame[], theme: GrafanaTheme2, timeZone: string): Promise<DataFrame[]> {
  const fieldConfig = sourceOf(panel);
  const transformations = (panel.transformations ?? []).filter((each) => !each.disabled) as DataTransformerConfig[];
  const data = await lastValueFrom(transformDataFrame(transformations, frames));
  const shown = applyFieldOverrides({
    data,
    fieldConfig,
    fieldConfigRegistry: registryOf(fieldConfig),
    replaceVariables: (value) => value,
    theme,
    timeZone,
  });
  cacheFieldDisplayNames(shown);
  return shown;
}

function sourceOf(panel: Panel): FieldConfigSource {
  const said = panel.fieldConfig?.defaults ?? {};
  const steps = (said.thresholds?.steps ?? [{ color: 'green', value: null }, { color: 'red', value: 80 }]) as any[];
  const thresholds = {
    mode: said.thresholds?.mode ?? 'absolute',
    steps: steps.map((step, index) => ({ ...step, value: index === 0 ? -Infinity : step.value })), // JSON has no -Infinity
  };
  const color = said.color ?? { mode: BY_SERIES.includes(panel.type) ? 'palette-classic' : 'thresholds' };
  return { defaults: { mappings: [], ...said, thresholds, color }, overrides: panel.fieldConfig?.overrides ?? [] };
}

/** The properties that this configuration names: each is taken over as it is. */
function registryOf(source: FieldConfigSource): FieldConfigOptionsRegistry {
  const custom = Object.keys(source.defaults.custom ?? {}).map((name) => `custom.${name}`);
  const overridden = source.overrides.flatMap((rule) => rule.properties.map((property) => property.id));
  const ids = [...new Set([...STANDARD, ...custom, ...overridden])];
  return new FieldConfigOptionsRegistry(() => ids.map(propertyOf));
}

function propertyOf(id: string): FieldConfigPropertyItem {
  const isCustom = id.startsWith('custom.');
  return {
    id,
    name: id,
    path: isCustom ? id.slice('custom.'.length) : id,
    isCustom,
    process: (value: any) => value,
    shouldApply: () => true,
    override: () => null,
    editor: () => null,
  } as unknown as FieldConfigPropertyItem;
}
