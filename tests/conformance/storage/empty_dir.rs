//! emptyDir: who may do what in it, on disk and in memory.

use serde_json::json;

use crate::Test;
use crate::running::script;

/// One row of the matrix.
#[derive(Clone, Copy)]
pub struct EmptyDir {
    /// In memory instead of on disk.
    pub memory: bool,
    /// Who writes; root when nobody is named.
    pub user: Option<u32>,
    /// The mode that a file is given; without one only the directory is looked at.
    pub file_mode: Option<&'static str>,
}

impl EmptyDir {
    /// The volume has its medium and mode, and a file in it the mode it was given.
    pub async fn run(self, test: &Test) {
        let mut lines = vec!["stat -c %A /v | cut -c 1-9; grep -c ' /v tmpfs ' /proc/mounts; true".to_owned()];
        if let Some(mode) = self.file_mode {
            lines.push(format!(
                "echo mount-tester new file > /v/file && chmod {mode} /v/file; stat -c '%a %u' /v/file; cat /v/file"
            ));
        }
        let mut pod = script("writer", &lines.join("; "));
        let medium = if self.memory { "Memory" } else { "" };
        pod["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {"medium": medium}}]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        if let Some(user) = self.user {
            pod["spec"]["securityContext"] = json!({"runAsUser": user});
        }
        let (memory, user) = (u8::from(self.memory), self.user.unwrap_or(0));
        let file =
            self.file_mode.map(|mode| format!("{} {user}\nmount-tester new file\n", mode.trim_start_matches('0')));
        assert_eq!(test.run(&pod).await, format!("drwxrwxrw\n{memory}\n{}", file.unwrap_or_default()));
    }
}
