//! Namespace: how it is, and what bounds it.

use anyhow::Result;
use serde_json::Value;

use super::sheet::{Sheet, items, pairs, plain, text};
use crate::cli::session::Session;

pub(super) async fn describe(sheet: &mut Sheet, session: &Session, object: &Value) -> Result<bool> {
    let metadata = &object["metadata"];
    sheet.identity(object);
    sheet.field(0, "Status", text(&object["status"], "phase"));
    let conditions = items(&object["status"], "conditions");
    if !conditions.is_empty() {
        sheet.line(0, "Conditions:\n  Type\tStatus\tLastTransitionTime\tReason\tMessage");
        sheet.line(1, "----\t------\t------------------\t------\t-------");
        for condition in conditions {
            let cells = ["type", "status", "lastTransitionTime", "reason", "message"];
            let date = super::sheet::date(text(condition, cells[2]));
            let [kind, status, _, reason, message] = cells.map(|key| text(condition, key));
            sheet.line(1, format_args!("{kind} \t{status} \t{date} \t{reason} \t{message} "));
        }
    }
    let name = text(metadata, "name");
    quotas(sheet, session, name).await?;
    limit_ranges(sheet, session, name).await?;
    Ok(false)
}

async fn quotas(sheet: &mut Sheet, session: &Session, namespace: &str) -> Result<()> {
    let Some(served) = session.discovery().await?.of_kind("ResourceQuota", "") else { return Ok(()) };
    let quotas = session.list(&served.kind, Some(namespace), &[]).await?;
    sheet.line(0, "");
    if quotas.is_empty() {
        sheet.line(0, "No resource quota.");
        return Ok(());
    }
    sheet.line(0, "Resource Quotas");
    for quota in &quotas {
        sheet.line(0, format_args!("  Name:\t{}", text(&quota["metadata"], "name")));
        sheet.line(0, "  Resource\tUsed\tHard\n  --------\t---\t---");
        let used = &quota["status"]["used"];
        for (resource, hard) in pairs(&quota["status"]["hard"]) {
            sheet.line(0, format_args!("  {resource}\t{}\t{hard}", plain(&used[resource])));
        }
    }
    Ok(())
}

async fn limit_ranges(sheet: &mut Sheet, session: &Session, namespace: &str) -> Result<()> {
    let Some(served) = session.discovery().await?.of_kind("LimitRange", "") else { return Ok(()) };
    let ranges = session.list(&served.kind, Some(namespace), &[]).await?;
    sheet.line(0, "");
    if ranges.is_empty() {
        sheet.line(0, "No LimitRange resource.");
        return Ok(());
    }
    sheet
        .line(0, "Resource Limits\n Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio");
    sheet.line(0, " ----\t--------\t---\t---\t---------------\t-------------\t-----------------------");
    for limit in ranges.iter().flat_map(|range| items(&range["spec"], "limits")) {
        const BOUNDS: [&str; 5] = ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
        let mut resources: Vec<&str> =
            BOUNDS.iter().flat_map(|bound| pairs(&limit[*bound]).map(|(resource, _)| resource)).collect();
        resources.sort_unstable();
        resources.dedup();
        for resource in resources {
            let cells = BOUNDS.map(|bound| match plain(&limit[bound][resource]) {
                value if value.is_empty() => "-".to_owned(),
                value => value,
            });
            sheet.line(0, format_args!(" {}\t{resource}\t{}", text(limit, "type"), cells.join("\t")));
        }
    }
    Ok(())
}
