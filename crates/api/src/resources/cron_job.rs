//! CronJob: jobs that are made again and again, by a schedule.
//!
//! Rules
//!   C1 name       leaves room for the time that is added to the names of its jobs
//!   C2 schedule   can be read (`schedule`), and names no time zone; that has a field of its own
//!   C3 zone       one of the IANA database
//!   C4 numbers    not negative
//!   C5 jobs       valid ones; nobody selects their pods by hand
//! Source: API reference, batch/v1 CronJob; KEP-3140.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::{not_negative, required_word};
use super::metadata::{validate_annotations, validate_labels};
use super::tree::{Tree, carry_over, fill, fill_text, part_mut};
use super::{age, age_column, column, job, label_selector, name_column, row, workload};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};
use crate::schedule;
use crate::zone::find_zone;

/// A job's name has 63 characters, of which 11 say when it was due.
const NAME_BYTES_MAX: usize = 52;
const SUCCESSES_KEPT_DEFAULT: i64 = 3;
const FAILURES_KEPT_DEFAULT: i64 = 1;

/// The row of CronJob.
pub(super) fn resource() -> Resource {
    let columns = workload::columns_selected(vec![
        name_column(),
        column("Schedule", "string", "when jobs are due"),
        column("Timezone", "string", "whose time the schedule means"),
        column("Suspend", "boolean", "whether no jobs are made now"),
        column("Active", "integer", "jobs that run now"),
        column("Last Schedule", "string", "time since a job was last due"),
        age_column(),
    ]);
    row(&kinds::CRON_JOB, columns, CronJob)
        .short_names(&["cj"])
        .in_all()
        .subresources(&[Subresource::Status])
        .counts_generations()
}

struct CronJob;

impl Rules for CronJob {
    fn default(&self, object: &mut Value) {
        let Some(spec) = part_mut(object, "spec") else { return };
        fill_text(spec, "concurrencyPolicy", "Allow");
        fill(spec, "suspend", false);
        fill(spec, "successfulJobsHistoryLimit", SUCCESSES_KEPT_DEFAULT);
        fill(spec, "failedJobsHistoryLimit", FAILURES_KEPT_DEFAULT);
        if let Some(spec) = part_mut(spec, "jobTemplate").and_then(|template| part_mut(template, "spec")) {
            job::fill_template(spec);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        workload::start(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let name = object["metadata"].text("name");
        if name.len() > NAME_BYTES_MAX {
            let detail = format!("must be no more than {NAME_BYTES_MAX} characters");
            errors.invalid(&Path::new("metadata").child("name"), name, &detail);
        }
        let (spec, at) = (&object["spec"], Path::new("spec"));
        validate_schedule(spec, &at, errors);
        if spec.is_set("timeZone") {
            validate_zone(spec.text("timeZone"), &at.child("timeZone"), errors);
        }
        not_negative(spec, "startingDeadlineSeconds", &at, errors);
        required_word(spec, "concurrencyPolicy", &["Allow", "Forbid", "Replace"], &at, errors);
        validate_job(&spec["jobTemplate"], &at.child("jobTemplate"), errors);
        not_negative(spec, "successfulJobsHistoryLimit", &at, errors);
        not_negative(spec, "failedJobsHistoryLimit", &at, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let template = ["spec", "jobTemplate", "spec", "template"];
        let mut all = workload::warnings_at(object, old, &template, true);
        let schedule = object["spec"].text("schedule");
        if schedule.contains("TZ") {
            all.push(format!(
                "CRON_TZ or TZ used in schedule {schedule:?} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            ));
        }
        all
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let template = &spec["jobTemplate"]["spec"];
        let last = match status.text("lastScheduleTime") {
            "" => "<none>".to_owned(),
            time => age::since(time, now),
        };
        let suspend = match spec.get("suspend").and_then(Value::as_bool) {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let own = vec![
            json!(object["metadata"].text("name")),
            json!(spec.text("schedule")),
            json!(if spec.is_set("timeZone") { spec.text("timeZone") } else { "<none>" }),
            json!(suspend),
            json!(status.items("active").len()),
            json!(last),
            age::of(object, now),
        ];
        workload::cells_selected(own, template, label_selector::shown(&template["selector"]))
    }
}

/// C2.
fn validate_schedule(spec: &Value, at: &Path, errors: &mut Errors) {
    let (text, path) = (spec.text("schedule"), at.child("schedule"));
    if text.is_empty() {
        errors.required(&path, "");
    } else if text.contains("TZ") {
        let detail = if spec.is_set("timeZone") {
            "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        } else {
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        };
        errors.invalid(&path, text, detail);
    } else if let Err(why) = schedule::check(text) {
        errors.invalid(&path, text, &why);
    }
}

/// C3.
fn validate_zone(zone: &str, path: &Path, errors: &mut Errors) {
    if zone.is_empty() {
        errors.invalid(path, zone, "timeZone must be nil or non-empty string");
    } else if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, zone, detail);
    } else if find_zone(zone).is_none() {
        errors.invalid(path, zone, &format!("unknown time zone {zone}"));
    }
}

/// C5.
fn validate_job(template: &Value, at: &Path, errors: &mut Errors) {
    validate_labels(template["metadata"].entries("labels"), &at.child("labels"), errors);
    validate_annotations(template["metadata"].entries("annotations"), &at.child("annotations"), errors);
    let (spec, at) = (&template["spec"], at.child("spec"));
    job::validate_spec(spec, &at, errors);
    if spec.flag("manualSelector") {
        errors.not_supported(&at.child("manualSelector"), "true", &["nil", "false"]);
    }
}

#[cfg(test)]
mod tests {
    use super::CronJob;
    use crate::field::Errors;
    use crate::resource::Rules;
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn good() -> Value {
        let mut cron = json!({"metadata": {"name": "c"}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {
            "spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "a:1"}]}}}}}});
        CronJob.default(&mut cron);
        cron
    }

    fn check(change: impl FnOnce(&mut Value), expected: &[&str]) {
        let mut cron = good();
        change(&mut cron["spec"]);
        let mut errors = Errors::new();
        CronJob.validate(&cron, &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn a_small_cron_job_is_filled_in() {
        let spec = &good()["spec"];
        assert_eq!((&spec["concurrencyPolicy"], &spec["suspend"]), (&json!("Allow"), &json!(false)));
        assert_eq!((&spec["successfulJobsHistoryLimit"], &spec["failedJobsHistoryLimit"]), (&json!(3), &json!(1)));
        let job = &spec["jobTemplate"]["spec"];
        assert_eq!((&job["template"]["spec"]["dnsPolicy"], job.get("backoffLimit")), (&json!("ClusterFirst"), None));
    }

    #[test]
    fn c1_names_leave_room() {
        let mut cron = good();
        cron["metadata"]["name"] = json!("c".repeat(53));
        let mut errors = Errors::new();
        CronJob.validate(&cron, &mut errors);
        assert_eq!(errors.len(), 1);
        let text = errors.iter().map(ToString::to_string).collect::<String>();
        assert!(text.ends_with("must be no more than 52 characters"), "{text}");
    }

    #[test]
    fn c2_and_c3_times_can_be_read() {
        check(|spec| spec["schedule"] = json!("@hourly"), &[]);
        check(|spec| spec["timeZone"] = json!("Europe/Berlin"), &[]);
        check(|spec| spec["timeZone"] = json!("Etc/UTC"), &[]);
        check(|spec| spec["schedule"] = json!(""), &["spec.schedule: Required value"]);
        check(
            |spec| spec["schedule"] = json!("* * * *"),
            &["spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4"],
        );
        check(
            |spec| spec["schedule"] = json!("TZ=UTC 0 0 * * *"),
            &["spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone"],
        );
        for (zone, refusal) in [
            ("", "timeZone must be nil or non-empty string"),
            ("Local", "timeZone must be an explicit time zone"),
            ("Europe/Atlantis", "unknown time zone Europe/Atlantis"),
            ("europe/berlin", "unknown time zone europe/berlin"),
            ("../etc/passwd", "unknown time zone ../etc/passwd"),
        ] {
            let refusal = format!("spec.timeZone: Invalid value: {zone:?}: {refusal}");
            check(|spec| spec["timeZone"] = json!(zone), &[&refusal]);
        }
    }

    #[test]
    fn c4_and_c5_its_jobs_are_valid() {
        check(
            |spec| {
                spec["startingDeadlineSeconds"] = json!(-1);
                spec["concurrencyPolicy"] = json!("Queue");
                spec["jobTemplate"]["spec"]["parallelism"] = json!(-1);
                spec["jobTemplate"]["spec"]["manualSelector"] = json!(true);
                spec["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
            },
            &[
                "spec.startingDeadlineSeconds: Invalid value: -1",
                "spec.concurrencyPolicy: Unsupported value: \"Queue\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
                "spec.jobTemplate.spec.parallelism: Invalid value: -1",
                "spec.jobTemplate.spec.template.spec.restartPolicy: Required value",
                "spec.jobTemplate.spec.manualSelector: Unsupported value: \"true\": supported values: \"nil\", \"false\"",
            ],
        );
    }

    #[test]
    fn the_printed_row() {
        let now = "2026-01-01T00:10:00Z".parse().expect("a timestamp");
        let mut cron = good();
        cron["status"] = json!({"active": [{}], "lastScheduleTime": "2026-01-01T00:09:30Z"});
        assert_eq!(
            Value::from(CronJob.cells(&cron, now)),
            json!(["c", "*/5 * * * *", "<none>", "False", 1, "30s", "<unknown>", "c", "a:1", "<none>"])
        );
    }
}
