// Writes the JSON Schemas of board.ts to standard output, by the `type` of the panel that each is
// for; that of the dashboard around them is `board`. The packages are beside it.
'use strict';

const path = require('node:path');
const { createGenerator } = require('ts-json-schema-generator');

// One for each kind of panel, so that what is said of a panel is about its kind.
const TYPES = {
  board: 'Board',
  row: 'Row',
  stat: 'StatPanel',
  bargauge: 'BarGaugePanel',
  table: 'TablePanel',
  'state-timeline': 'TimelinePanel',
  'status-history': 'HistoryPanel',
  timeseries: 'SeriesPanel',
};

const generator = createGenerator({
  path: path.join(__dirname, 'board.ts'),
  tsconfig: path.join(__dirname, 'tsconfig.json'),
  expose: 'all',
  additionalProperties: false,
});
const schemas = Object.entries(TYPES).map(([kind, type]) => [kind, generator.createSchema(type)]);
process.stdout.write(JSON.stringify(Object.fromEntries(schemas), null, 1) + '\n');
