// What a dashboard of ours is, in Grafana's own types: from this the JSON Schema is derived.
//
// Grafana's `Panel` leaves options, targets and custom fields open, since they are each plugin's
// own: here every kind of panel that we use has those of its plugin. What the Prometheus data source
// reads (its `dataquery.ts` and `annotations.ts`) is in no published package of types, so it is
// written down here.

import type {
  AnnotationQuery,
  Dashboard,
  DataQuery,
  DataSourceRef,
  FieldColor,
  FieldConfig,
  GridPos,
  Panel,
  RowPanel,
  TableCellOptions,
  TableFieldOptions,
  ThresholdsConfig,
  ValueMapping,
  VariableModel,
} from '@grafana/schema';
import type * as bars from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as timeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as history from '@grafana/schema/dist/esm/raw/composable/statushistory/panelcfg/x/StatusHistoryPanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as series from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

interface Prometheus extends DataSourceRef {
  type: 'prometheus';
  uid: '${datasource}';
}

interface Query extends DataQuery {
  datasource: Prometheus;
  refId: string;
  expr: string;
  editorMode: 'builder' | 'code';
  format?: 'time_series' | 'table' | 'heatmap';
  instant: boolean;
  range: boolean;
  legendFormat: string;
}

interface Link {
  title: string;
  url: string;
  targetBlank?: boolean;
}

interface Defaults<Custom> extends Omit<FieldConfig, 'custom' | 'links'> {
  custom?: Custom;
  links?: Link[];
}

type Property =
  | { id: 'unit' | 'displayName' | 'noValue'; value: string }
  | { id: 'min' | 'max' | 'decimals' | 'custom.width'; value: number }
  | { id: 'custom.hidden'; value: boolean }
  | { id: 'custom.cellOptions'; value: TableCellOptions }
  | { id: 'mappings'; value: ValueMapping[] }
  | { id: 'thresholds'; value: ThresholdsConfig }
  | { id: 'color'; value: FieldColor }
  | { id: 'links'; value: Link[] };

interface Fields<Custom> {
  defaults: Defaults<Custom>;
  overrides: Array<{
    matcher: { id: 'byName' | 'byRegexp'; options: string };
    properties: Property[];
  }>;
}

type Transformation =
  | { id: 'merge'; options: Record<string, never> }
  | {
      id: 'organize';
      options: {
        excludeByName: Record<string, boolean>;
        indexByName: Record<string, number>;
        renameByName: Record<string, string>;
      };
    };

type Ours = 'type' | 'options' | 'targets' | 'fieldConfig' | 'datasource' | 'id' | 'title';
type OursToo = 'description' | 'gridPos' | 'transformations';

interface Drawn extends Omit<Panel, Ours | OursToo> {
  id: number;
  title: string;
  description: string;
  gridPos: GridPos;
  datasource: Prometheus;
  targets: Query[];
  transformations?: Transformation[];
}

export interface StatPanel extends Drawn {
  type: 'stat';
  options: stat.Options;
  fieldConfig: Fields<never>;
}

export interface BarGaugePanel extends Drawn {
  type: 'bargauge';
  options: bars.Options;
  fieldConfig: Fields<never>;
}

export interface TablePanel extends Drawn {
  type: 'table';
  options: table.Options;
  fieldConfig: Fields<TableFieldOptions>;
}

export interface TimelinePanel extends Drawn {
  type: 'state-timeline';
  options: timeline.Options;
  fieldConfig: Fields<timeline.FieldConfig>;
}

export interface HistoryPanel extends Drawn {
  type: 'status-history';
  options: history.Options;
  fieldConfig: Fields<history.FieldConfig>;
}

export interface SeriesPanel extends Drawn {
  type: 'timeseries';
  options: series.Options;
  fieldConfig: Fields<series.FieldConfig>;
}

export interface Row extends RowPanel {
  gridPos: GridPos;
  title: string;
}

interface Annotation extends AnnotationQuery<Query> {
  datasource: Prometheus;
  target: Query;
  expr: string;
  titleFormat: string;
  textFormat: string;
  useValueForTime?: boolean;
}

interface Variable extends Omit<VariableModel, 'query'> {
  query: string;
  definition?: string;
}

export interface Board extends Omit<Dashboard, 'panels' | 'annotations' | 'templating'> {
  uid: string;
  title: string;
  description: string;
  tags: string[];
  panels: Array<{ id: number; type: string; [rest: string]: unknown }>;
  annotations: { list: Annotation[] };
  templating: { list: Variable[] };
}
