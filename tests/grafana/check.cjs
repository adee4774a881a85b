// Answers questions about dashboards with Grafana's own code. Each line of standard input is a JSON
// object, and is answered by one on standard output. The file of derived schemas is its one argument;
// the packages are where NODE_PATH says.
//
// {"faults": [board, ...]}                 what is wrong with each: [[text, ...], ...]
// {"words": [{"panel", "values"}, ...]}    each value as the panel shows it: [[{text, color}, ...], ...]
// {"rows": [{"panel", "frames", "variables"}, ...]}
//                                          each row of a table: [[{column: {text, color, links}}], ...]
// {"colors": [name, ...]}                  how Grafana writes a color: [text, ...]
// {"hrefs": [{"panel", "labels", "variables"}, ...]}   where a click on a series leads: [[url], ...]
'use strict';

const fs = require('node:fs');
const readline = require('node:readline');

const { JSDOM } = require('jsdom');

// @grafana/data reads these while it is loaded.
const page = new JSDOM('<!doctype html>', { url: 'http://grafana.example/' }).window;
globalThis.window = page;
for (const name of ['document', 'Node', 'Element', 'HTMLElement', 'DOMParser', 'localStorage', 'location']) {
  globalThis[name] ??= page[name];
}
globalThis.navigator ??= page.navigator;

const grafana = require('@grafana/data');
const { default: Ajv } = require('ajv');
const { lastValueFrom } = require('rxjs');

const theme = grafana.createTheme();
const schemas = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const ajv = new Ajv({ allErrors: true, strict: false, validateFormats: false });
const validators = Object.fromEntries(
  Object.entries(schemas).map(([kind, schema]) => [kind, ajv.compile(schema)])
);
const units = new Set(
  grafana.getValueFormats().flatMap((category) => category.submenu.map((format) => format.value))
);
// Some have an older name besides.
const transformations = new Map(
  Object.values(grafana.standardTransformers).map((transformation) => [
    transformation.id,
    { id: transformation.id, name: transformation.name, transformation },
  ])
);
grafana.standardTransformersRegistry.setInit(() => [...transformations.values()]);

// --- what is wrong with a dashboard ---------------------------------------------------------

function faultsOf(board) {
  const faults = [...invalid('board', board, '')];
  const seen = new Set();
  for (const [index, panel] of (board.panels ?? []).entries()) {
    const at = `/panels/${index}`;
    faults.push(...(panel.type in validators ? invalid(panel.type, panel, at) : [`${at} unknown type`]));
    if (seen.has(panel.id)) {
      faults.push(`${at}/id ${panel.id} is taken`);
    }
    seen.add(panel.id);
    for (const unit of unitsOf(panel)) {
      if (!units.has(unit)) {
        faults.push(`${at} Grafana has no unit ${unit}`);
      }
    }
    for (const { id } of panel.transformations ?? []) {
      if (!transformations.has(id)) {
        faults.push(`${at} Grafana has no transformation ${id}`);
      }
    }
  }
  return faults;
}

function invalid(kind, value, at) {
  const validate = validators[kind];
  validate(value);
  return (validate.errors ?? []).map(
    ({ instancePath, message, params }) => `${at}${instancePath} ${message} ${JSON.stringify(params)}`
  );
}

function* unitsOf(panel) {
  const { defaults, overrides } = panel.fieldConfig ?? {};
  if (defaults?.unit !== undefined) {
    yield defaults.unit;
  }
  for (const { properties } of overrides ?? []) {
    for (const { id, value } of properties ?? []) {
      if (id === 'unit') {
        yield value;
      }
    }
  }
}

// --- how values are shown -------------------------------------------------------------------

// What overrides may set. Grafana's own list comes with its user interface.
const registry = new grafana.FieldConfigOptionsRegistry(() =>
  ['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'mappings', 'thresholds', 'color', 'links']
    .map((id) => ({ id, path: id, name: id, settings: {}, shouldApply: () => true, process: (v) => v }))
    .concat(
      ['width', 'cellOptions', 'hidden', 'align', 'filterable', 'inspect'].map((id) => ({
        id: `custom.${id}`,
        path: id,
        name: id,
        isCustom: true,
        settings: {},
        shouldApply: () => true,
        process: (v) => v,
      }))
    )
);

function applied(panel, frames, variables = {}) {
  return grafana.applyFieldOverrides({
    data: frames.map((frame) => grafana.toDataFrame(frame)),
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: registry,
    replaceVariables: (text, scoped) => replaced(text, scoped, variables),
    theme,
    timeZone: 'utc',
  });
}

// As Grafana's templates do it, for the formats that the dashboards use.
function replaced(text, scoped, variables) {
  const context = scoped?.__dataContext?.value;
  return text.replace(/\$\{([\w.]+)(?::(\w+))?\}|\$(\w+)/g, (whole, braced, format, bare) => {
    const [name, ...way] = (braced ?? bare).split('.');
    if (name === '__data' && context) {
      const { frame, rowIndex } = context;
      const fields = grafana.getFieldDisplayValuesProxy({ frame, rowIndex });
      return formatted(way[0] === 'fields' ? fields[way[1]] : undefined, format, name, whole);
    }
    if (name === '__field' && context) {
      const labels = way[0] === 'labels' ? context.field.labels : undefined;
      return formatted(labels?.[way[1]], format, name, whole);
    }
    return formatted(variables[name], format, name, whole);
  });
}

function formatted(value, format, name, whole) {
  if (value === undefined || value === null) {
    return whole;
  }
  if (format === 'queryparam') {
    return [value].flat().map((one) => `var-${name}=${encodeURIComponent(one)}`).join('&');
  }
  return format === 'percentencode' ? encodeURIComponent(String(value)) : String(value);
}

function shown(field, value) {
  const display = field.display(value);
  return { text: grafana.formattedValueToString(display), color: display.color ?? null };
}

function wordsOf({ panel, values }) {
  const time = { name: 'Time', type: 'time', values: values.map((_, index) => index) };
  const [frame] = applied(panel, [{ fields: [time, { name: 'Value', type: 'number', values }] }]);
  return values.map((value) => shown(frame.fields[1], value));
}

function hrefsOf({ panel, labels, variables }) {
  const fields = [
    { name: 'Time', type: 'time', values: [0] },
    { name: 'Value', type: 'number', values: [1], labels },
  ];
  const [frame] = applied(panel, [{ fields }], variables);
  return linksOf(frame.fields[1], 0);
}

function linksOf(field, row) {
  return (field.getLinks?.({ valueRowIndex: row }) ?? []).map((link) => link.href);
}

async function rowsOf({ panel, frames, variables }) {
  const made = frames.map((frame) => grafana.toDataFrame(frame));
  const joined = await lastValueFrom(grafana.transformDataFrame(panel.transformations ?? [], made));
  const [frame] = applied(panel, joined, variables);
  const columns = frame.fields.map((field) => [grafana.getFieldDisplayName(field, frame), field]);
  return Array.from({ length: frame.length }, (_, row) =>
    Object.fromEntries(
      columns.map(([name, field]) => [
        name,
        { ...shown(field, field.values[row]), links: linksOf(field, row) },
      ])
    )
  );
}

// --- questions and answers ------------------------------------------------------------------

async function answer(asked) {
  return {
    faults: (asked.faults ?? []).map(faultsOf),
    words: (asked.words ?? []).map(wordsOf),
    rows: await Promise.all((asked.rows ?? []).map(rowsOf)),
    hrefs: (asked.hrefs ?? []).map(hrefsOf),
    colors: (asked.colors ?? []).map((name) => theme.visualization.getColorByName(name)),
  };
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + '\n');
  }
}

main();
