local rules(names) = { groups+: std.flattenArrays([name.groups for name in names]) };
{ prometheusAlerts+:: rules([import 'json/opensips-sr.rules.json', import 'json/sr-exporter.rules.json']) } +
{ prometheusRules+:: rules([import 'json/not-ready-on-purpose.rules.json', import 'json/recording.rules.json']) }
