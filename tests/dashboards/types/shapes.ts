// Grafana's published types, as JSON has them. What a file may leave out, since the panel's plugin has a default for
// it, is optional; what has another type, or a name that nobody reads, does not compile.
import type * as grafana from "@grafana/schema";
import type * as barchart from "@grafana/schema/dist/esm/raw/composable/barchart/panelcfg/x/BarChartPanelCfg_types.gen";
import type * as bargauge from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as gauge from "@grafana/schema/dist/esm/raw/composable/gauge/panelcfg/x/GaugePanelCfg_types.gen";
import type * as heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as logs from "@grafana/schema/dist/esm/raw/composable/logs/panelcfg/x/LogsPanelCfg_types.gen";
import type * as loki from "@grafana/schema/dist/esm/raw/composable/loki/dataquery/x/LokiDataQuery_types.gen";
import type * as piechart from "@grafana/schema/dist/esm/raw/composable/piechart/panelcfg/x/PieChartPanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as timeline from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as history from "@grafana/schema/dist/esm/raw/composable/statushistory/panelcfg/x/StatusHistoryPanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as tempo from "@grafana/schema/dist/esm/raw/composable/tempo/dataquery/x/TempoDataQuery_types.gen";
import type * as text from "@grafana/schema/dist/esm/raw/composable/text/panelcfg/x/TextPanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** A type as JSON has it: a member of an enum of texts is its value. */
export type Plain<T> = unknown extends T
  ? T
  : T extends string
    ? string extends T
      ? string
      : `${T}`
    : T extends Array<infer Item>
      ? Plain<Item>[]
      : T extends object
        ? { [Key in keyof T]: Plain<T[Key]> }
        : T;

type Source<Kind extends string> = { datasource: { type: Kind; uid: string } };
type Query<Kind extends string, Fields> = Omit<grafana.DataQuery, "datasource"> & Source<Kind> & Partial<Omit<Plain<Fields>, "datasource" | "refId">>;

/** Prometheus' query is published in no package of types: these are the names that its documentation has. */
interface Prometheus {
  expr: string;
  editorMode: "code" | "builder";
  exemplar: boolean;
  format: "time_series" | "table" | "heatmap";
  instant: boolean;
  range: boolean;
  interval: string;
  legendFormat: string;
}

/** What each kind of data source is asked. */
export interface Queries {
  prometheus: Query<"prometheus", Prometheus> & { expr: string };
  loki: Query<"loki", loki.LokiDataQuery> & { expr: string };
  tempo: Query<"tempo", tempo.TempoQuery> & { query: string };
}

type Configured<Custom> = Omit<Plain<grafana.FieldConfigSource>, "defaults"> & {
  defaults: Omit<Plain<grafana.FieldConfig>, "custom"> & { custom?: Partial<Plain<Custom>> };
};
type Panel<Kind extends string, Options, Custom = Record<string, never>> = Omit<
  Plain<grafana.Panel>,
  "type" | "options" | "fieldConfig"
> & { type: Kind; options?: Partial<Plain<Options>>; fieldConfig?: Configured<Custom> };

/** Each panel with its own plugin's options. */
export interface Panels {
  barchart: Panel<"barchart", barchart.Options, barchart.FieldConfig>;
  bargauge: Panel<"bargauge", bargauge.Options>;
  gauge: Panel<"gauge", gauge.Options>;
  heatmap: Panel<"heatmap", heatmap.Options, heatmap.FieldConfig>;
  logs: Panel<"logs", logs.Options>;
  piechart: Panel<"piechart", piechart.Options, piechart.FieldConfig>;
  row: Plain<grafana.RowPanel>;
  stat: Panel<"stat", stat.Options>;
  "state-timeline": Panel<"state-timeline", timeline.Options, timeline.FieldConfig>;
  "status-history": Panel<"status-history", history.Options, history.FieldConfig>;
  table: Panel<"table", table.Options, table.FieldConfig>;
  text: Panel<"text", text.Options>;
  timeseries: Panel<"timeseries", timeseries.Options, timeseries.FieldConfig>;
}

/** An annotation asks Prometheus, or Grafana's own store by tags. */
type Annotation = Omit<Plain<grafana.AnnotationQuery>, "target"> & {
  expr?: string;
  step?: string;
  tagKeys?: string;
  textFormat?: string;
  titleFormat?: string;
  useValueForTime?: boolean;
  target?: Partial<Queries["prometheus"]> | { limit: number; matchAny: boolean; tags: string[]; type: string; refId?: string };
};

export type Dashboard = Omit<Plain<grafana.Dashboard>, "annotations"> & { annotations?: { list?: Annotation[] } };
