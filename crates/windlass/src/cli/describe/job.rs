//! Job: how much of it is done.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resources::age;

use super::sheet::{Sheet, date, items, number, plain, selector, text};
use super::template::template;

pub(super) fn describe(sheet: &mut Sheet, object: &Value) -> bool {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    sheet.field(0, "Name", text(metadata, "name"));
    sheet.field(0, "Namespace", text(metadata, "namespace"));
    sheet.field(0, "Selector", selector(&spec["selector"]));
    sheet.labels(0, "Labels", &metadata["labels"]);
    sheet.annotations(0, &metadata["annotations"]);
    sheet.controller(object);
    optional(sheet, "Parallelism", &spec["parallelism"]);
    let completions = plain(&spec["completions"]);
    sheet.field(0, "Completions", if completions.is_empty() { "<unset>" } else { &completions });
    optional(sheet, "Completion Mode", &spec["completionMode"]);
    optional(sheet, "Suspend", &spec["suspend"]);
    optional(sheet, "Backoff Limit", &spec["backoffLimit"]);
    optional(sheet, "TTL Seconds After Finished", &spec["ttlSecondsAfterFinished"]);
    times(sheet, status);
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64() {
        sheet.field(0, "Active Deadline Seconds", format_args!("{seconds}s"));
    }
    let counts = (number(status, "active"), number(status, "succeeded"), number(status, "failed"));
    let ready = status["ready"].as_i64().map(|ready| format!(" ({ready} Ready)")).unwrap_or_default();
    sheet.field(
        0,
        "Pods Statuses",
        format_args!("{} Active{ready} / {} Succeeded / {} Failed", counts.0, counts.1, counts.2),
    );
    if text(spec, "completionMode") == "Indexed" {
        sheet.field_or_none(0, "Completed Indexes", text(status, "completedIndexes"));
    }
    template(sheet, &spec["template"]);
    true
}

fn optional(sheet: &mut Sheet, title: &str, value: &Value) {
    if !value.is_null() {
        sheet.field(0, title, plain(value));
    }
}

fn times(sheet: &mut Sheet, status: &Value) {
    if !text(status, "startTime").is_empty() {
        sheet.field(0, "Start Time", date(text(status, "startTime")));
    }
    let failed = items(status, "conditions").iter().any(|condition| text(condition, "type") == "Failed");
    if !text(status, "completionTime").is_empty() && !failed {
        sheet.field(0, "Completed At", date(text(status, "completionTime")));
    }
    let moment = |key: &str| text(status, key).parse::<Timestamp>();
    if let (Ok(start), Ok(end)) = (moment("startTime"), moment("completionTime")) {
        sheet.field(0, "Duration", age::between(start, end));
    }
}
