//! The dashboards and rules say what the node says: every panel is well formed, every expression parses, every metric
//! and label in it is one that `metrics/mod.rs` declares, every rule has a runbook.
//!
//! What a real Prometheus makes of them is asked by `tests/prometheus`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use serde_json::Value;

/// Labels that the scrape adds.
const SCRAPE_LABELS: &[&str] = &["job", "instance"];
/// What no metric may be divided by: it would carry patients into the monitoring system.
const FORBIDDEN_LABELS: &[&str] = &["patient", "patient_id", "bed", "device", "device_id", "subject", "mrn", "name"];
/// Panels that show numbers over time or at once; rows only divide the page.
const PANEL_TYPES: &[&str] = &["stat", "timeseries", "bargauge", "heatmap", "table"];

const DASHBOARD_KEYS: &[&str] = &[
    "uid",
    "title",
    "description",
    "tags",
    "schemaVersion",
    "version",
    "editable",
    "graphTooltip",
    "fiscalYearStartMonth",
    "weekStart",
    "timezone",
    "refresh",
    "liveNow",
    "time",
    "timepicker",
    "annotations",
    "links",
    "templating",
    "panels",
];
const PANEL_KEYS: &[&str] = &[
    "id",
    "type",
    "title",
    "description",
    "datasource",
    "targets",
    "fieldConfig",
    "options",
    "gridPos",
    "transformations",
    "collapsed",
    "panels",
];
const TARGET_KEYS: &[&str] = &["refId", "datasource", "expr", "legendFormat", "editorMode", "range", "instant", "format"];
const VARIABLE_KEYS: &[&str] = &[
    "name",
    "label",
    "description",
    "type",
    "datasource",
    "query",
    "refresh",
    "sort",
    "regex",
    "multi",
    "includeAll",
    "allValue",
    "hide",
    "skipUrlSync",
    "options",
    "current",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn dashboards() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("grafana/dashboards")).expect("the dashboards can be listed") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        found.push((name, serde_json::from_str(&read(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(found.len() >= 2, "the engine's and the ward's dashboards are there");
    found
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value, key: &str) -> i64 {
    value[key].as_i64().unwrap_or_else(|| panic!("{key} is a whole number in {value}"))
}

/// Every panel with the name of its dashboard, those inside collapsed rows too.
fn panels() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (name, dashboard) in dashboards() {
        for panel in list(&dashboard, "panels") {
            found.push((name.clone(), panel.clone()));
            found.extend(list(panel, "panels").iter().map(|inner| (name.clone(), inner.clone())));
        }
    }
    found
}

fn only_known_keys(value: &Value, known: &[&str], what: &str) {
    for key in value.as_object().unwrap_or_else(|| panic!("{what} is an object")).keys() {
        assert!(known.contains(&key.as_str()), "{what} has the unknown key {key}");
    }
}

/// Metrics by name, with their labels; a histogram under the names of its three series, with `le` on its buckets.
fn declared() -> BTreeMap<String, BTreeSet<String>> {
    let source = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics/mod.rs"));
    let code = source.split("#[cfg(test)]").next().expect("a first part");
    let mut found = BTreeMap::new();
    for (at, _) in code.match_indices("(&r,").chain(code.match_indices("(\n                &r,")) {
        let kind = code[..at].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().expect("a word");
        let call = &code[at..][..code[at..].find(')').expect("the call ends")];
        let mut literals = call.split('"').skip(1).step_by(2).map(str::to_owned);
        let name = literals.next().expect("a metric has a name");
        let _help = literals.next().expect("a metric has a help text");
        let mut labels: BTreeSet<String> = literals.collect();
        if kind.starts_with("histogram") {
            for suffix in ["_sum", "_count"] {
                found.insert(format!("{name}{suffix}"), labels.clone());
            }
            labels.insert("le".to_owned());
            found.insert(format!("{name}_bucket"), labels);
        } else {
            found.insert(name, labels);
        }
    }
    // Prometheus writes this one itself, for every target.
    found.insert("up".to_owned(), BTreeSet::new());
    assert!(found.len() > 30, "the declarations of metrics/mod.rs are read: {found:?}");
    found
}

/// A panel's expression as Prometheus would get it.
fn expanded(expr: &str) -> String {
    let mut expr = expr.replace("$__rate_interval", "1m").replace("$__range", "30m").replace("$__interval", "15s");
    for variable in ["job", "instance", "topic", "query", "ward", "rule"] {
        expr = expr.replace(&format!("\"${variable}\""), "\".+\"");
    }
    assert!(!expr.contains('$'), "an unknown variable is left in {expr}");
    expr
}

/// Every selector of an expression, and every label that an operator names.
fn look(expr: &Expr, selectors: &mut Vec<VectorSelector>, labels: &mut BTreeSet<String>) {
    let mut named = |modifier: &LabelModifier| labels.extend(modifier.labels().labels.iter().cloned());
    match expr {
        Expr::Aggregate(e) => {
            e.modifier.iter().for_each(&mut named);
            look(&e.expr, selectors, labels);
        }
        Expr::Binary(e) => {
            e.modifier.iter().filter_map(|m| m.matching.as_ref()).for_each(&mut named);
            look(&e.lhs, selectors, labels);
            look(&e.rhs, selectors, labels);
        }
        Expr::Unary(e) => look(&e.expr, selectors, labels),
        Expr::Paren(e) => look(&e.expr, selectors, labels),
        Expr::Subquery(e) => look(&e.expr, selectors, labels),
        Expr::Call(e) => e.args.args.iter().for_each(|arg| look(arg, selectors, labels)),
        Expr::VectorSelector(e) => selectors.push(e.clone()),
        Expr::MatrixSelector(e) => selectors.push(e.vs.clone()),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

fn check_expr(expr: &str, declared: &BTreeMap<String, BTreeSet<String>>) -> Result<(), String> {
    let tree = parser::parse(expr).map_err(|e| format!("does not parse: {e}"))?;
    let (mut selectors, mut named) = (Vec::new(), BTreeSet::new());
    look(&tree, &mut selectors, &mut named);
    if selectors.is_empty() {
        return Err("names no metric".to_owned());
    }
    let mut known: BTreeSet<&str> = SCRAPE_LABELS.iter().copied().collect();
    for selector in &selectors {
        let name = selector.name.as_deref().ok_or("has a selector without a metric's name")?;
        let labels = declared.get(name).ok_or_else(|| format!("names {name}, which metrics/mod.rs does not declare"))?;
        known.extend(labels.iter().map(String::as_str));
        for matcher in &selector.matchers.matchers {
            if !labels.contains(&matcher.name) && !SCRAPE_LABELS.contains(&matcher.name.as_str()) {
                return Err(format!("{name} has no label {}", matcher.name));
            }
        }
    }
    match named.iter().find(|label| !known.contains(label.as_str())) {
        Some(label) => Err(format!("groups by {label}, which none of its metrics has")),
        None => Ok(()),
    }
}

/// A rule as its file has it: one line a field.
struct Rule {
    alert: String,
    fields: BTreeMap<String, String>,
}

fn rules() -> Vec<Rule> {
    let mut found: Vec<Rule> = Vec::new();
    for line in read(&root().join("prometheus/rules/vitalsql.yml")).lines() {
        let line = line.trim();
        if let Some(alert) = line.strip_prefix("- alert: ") {
            found.push(Rule { alert: alert.to_owned(), fields: BTreeMap::new() });
        } else if let (Some(rule), Some((key, value))) = (found.last_mut(), line.split_once(": ")) {
            let value =
                value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')).map_or_else(|| value.to_owned(), |v| v.replace("''", "'"));
            rule.fields.insert(key.to_owned(), value);
        }
    }
    assert!(found.len() >= 9, "the rules are read");
    found
}

/// The anchor a heading gets.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|c| if c == ' ' { Some('-') } else { (c.is_alphanumeric() || c == '-' || c == '_').then_some(c) })
        .collect()
}

#[test]
fn a_dashboard_is_the_classic_model_that_provisioning_takes() {
    let mut uids = BTreeSet::new();
    for (name, dashboard) in dashboards() {
        only_known_keys(&dashboard, DASHBOARD_KEYS, &name);
        let uid = text(&dashboard, "uid");
        assert!((8..=40).contains(&uid.len()) && uids.insert(uid.to_owned()), "{name}: uid {uid:?} has 8 to 40 characters and is its own");
        assert_eq!(dashboard["schemaVersion"], 39, "{name}");
        assert_eq!(dashboard["editable"], false, "{name}: changed in its file, not in the UI");
        assert_eq!(dashboard["refresh"], "5s", "{name}: Grafana's floor");
        assert!(text(&dashboard, "description").contains("Not a medical device"), "{name} says what it is not");
    }
}

#[test]
fn variables_choose_the_data_source_the_nodes_and_what_they_say() {
    for (name, dashboard) in dashboards() {
        let variables = list(&dashboard["templating"], "list");
        for variable in variables {
            only_known_keys(variable, VARIABLE_KEYS, &name);
        }
        let source = variables.first().expect("a first variable");
        assert_eq!(
            (text(source, "name"), text(source, "type"), text(source, "query")),
            ("datasource", "datasource", "prometheus"),
            "{name}"
        );
        for wanted in ["job", "instance"] {
            assert!(variables.iter().any(|v| text(v, "name") == wanted), "{name} has a variable {wanted}");
        }
        let metrics = declared();
        for variable in &variables[1..] {
            let (of, query) = (text(variable, "name"), text(&variable["query"], "query"));
            assert_eq!(text(variable, "type"), "query", "{name}.{of}");
            assert_eq!(variable["datasource"]["uid"], "${datasource}", "{name}.{of}");
            assert_eq!(
                (&variable["multi"], &variable["includeAll"], &variable["allValue"]),
                (&Value::Bool(true), &Value::Bool(true), &Value::Null),
                "{name}.{of}"
            );
            let (selector, label) = query
                .strip_prefix("label_values(")
                .and_then(|q| q.strip_suffix(')'))
                .and_then(|q| q.rsplit_once(", "))
                .expect("label_values(metric, label)");
            check_expr(&expanded(&format!("sum by ({label}) ({selector})")), &metrics)
                .unwrap_or_else(|e| panic!("{name}.{of}: {query} {e}"));
        }
    }
}

#[test]
fn panels_have_a_number_a_place_a_unit_and_words_of_their_own() {
    let mut ids: BTreeSet<(String, i64)> = BTreeSet::new();
    let mut taken: BTreeMap<(String, i64, i64), String> = BTreeMap::new();
    for (of, panel) in panels() {
        let title = text(&panel, "title");
        let name = format!("{of}: {title:?}");
        only_known_keys(&panel, PANEL_KEYS, &name);
        assert!(!title.is_empty(), "{name} has a title");
        assert!(ids.insert((of.clone(), number(&panel, "id"))), "{name}: its id is its own");
        let place = &panel["gridPos"];
        let (x, y, w, h) = (number(place, "x"), number(place, "y"), number(place, "w"), number(place, "h"));
        assert!(x >= 0 && w > 0 && h > 0 && x + w <= 24, "{name} lies on the grid");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            if let Some(other) = taken.insert((of.clone(), cell.0, cell.1), name.clone()) {
                panic!("{name} lies on {other}");
            }
        }
        if text(&panel, "type") == "row" {
            continue;
        }
        assert!(PANEL_TYPES.contains(&text(&panel, "type")), "{name} is of a known type");
        assert!(text(&panel, "description").ends_with('.'), "{name} has a description, in sentences");
        assert!(!text(&panel["fieldConfig"]["defaults"], "unit").is_empty(), "{name} has a unit");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}");
        assert!(!list(&panel, "targets").is_empty(), "{name} asks for something");
        let mut letters = BTreeSet::new();
        for target in list(&panel, "targets") {
            only_known_keys(target, TARGET_KEYS, &name);
            assert!(letters.insert(text(target, "refId").to_owned()), "{name}: each target has a letter of its own");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{name}");
        }
    }
}

#[test]
fn every_expression_of_a_panel_parses_and_names_metrics_that_exist() {
    let metrics = declared();
    for (of, panel) in panels() {
        for target in list(&panel, "targets") {
            let expr = text(target, "expr");
            let name = format!("{of}: {:?}: {expr}", text(&panel, "title"));
            check_expr(&expanded(expr), &metrics).unwrap_or_else(|e| panic!("{name} {e}"));
            for (at, _) in expr.match_indices("rate(") {
                let range = &expr[at..][expr[at..].find('[').expect("a rate has a range")..];
                assert!(range.starts_with("[$__rate_interval]"), "{name}: a rate is over $__rate_interval");
            }
            assert!(expr.contains("job=~\"$job\"") && expr.contains("instance=~\"$instance\""), "{name} keeps to the chosen nodes");
            assert!(!expr.contains("=\"$"), "{name}: a variable of several values is matched with =~");
        }
    }
}

#[test]
fn every_rule_parses_says_what_it_means_and_has_a_runbook() {
    let metrics = declared();
    let readme = read(&root().join("README.md"));
    let anchors: BTreeSet<String> = readme.lines().filter_map(|l| l.strip_prefix("### ")).map(anchor).collect();
    let tests = read(&root().join("prometheus/tests/vitalsql_test.yml"));
    let mut names = BTreeSet::new();
    for Rule { alert, fields } in rules() {
        let field = |key: &str| fields.get(key).unwrap_or_else(|| panic!("{alert} has a field {key}")).as_str();
        assert!(names.insert(alert.clone()), "{alert} is there once");
        check_expr(field("expr"), &metrics).unwrap_or_else(|e| panic!("{alert}: {} {e}", field("expr")));
        assert!(["critical", "warning", "info"].contains(&field("severity")), "{alert}");
        assert!(!field("summary").is_empty() && field("description").ends_with('.'), "{alert} says what it means");
        let runbook =
            field("runbook_url").strip_prefix("dashboards/README.md#").unwrap_or_else(|| panic!("{alert} has its runbook in the README"));
        assert!(anchors.contains(runbook), "the README has no section {runbook}");
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} is tested");
    }
    for section in readme.lines().skip_while(|l| *l != "## Runbooks").filter_map(|l| l.strip_prefix("### ")) {
        assert!(names.contains(section), "the runbook {section} belongs to no rule");
    }
}

#[test]
fn no_metric_is_divided_by_patient_bed_or_device() {
    for (metric, labels) in declared() {
        for forbidden in FORBIDDEN_LABELS {
            assert!(!labels.contains(*forbidden), "{metric} has the label {forbidden}");
        }
    }
}

#[test]
fn what_is_wrong_in_an_expression_is_found() {
    let metrics = declared();
    for (expr, wrong) in [
        ("sum(vitalsql_query_rows_in)", "does not declare"),
        ("sum by (patient) (vitalsql_ward_beds)", "groups by patient"),
        ("vitalsql_ward_beds{bed=\"1\"}", "no label bed"),
        ("rate(vitalsql_log_append_groups_total)", "does not parse"),
        ("vector(1)", "names no metric"),
    ] {
        let said = check_expr(expr, &metrics).expect_err(expr);
        assert!(said.contains(wrong), "{expr}: {said}");
    }
}
