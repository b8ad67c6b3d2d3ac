//! A profile written by someone else, in the form of the OCI runtime specification, compiled to a filter.
//!
//! Source: OCI runtime specification, config-linux, "Seccomp"; seccomp(2).
//!
//! Rules
//!   R1 order       of two rules that fit, one without conditions on arguments wins, then the one that comes first
//!   R2 unknown     a call this architecture does not have is passed over, as everywhere
//!   R3 foreign     a call in another architecture's numbering kills the process: no rule was written for it
//!   R4 refused     an action that needs somebody beside the process (`SCMP_ACT_NOTIFY`) is refused, never approximated

use std::collections::BTreeMap;

use seccompiler::sock_filter;
use serde::{Deserialize, Serialize};

use super::call;

/// The kernel's bound on instructions of one filter.
const INSTRUCTIONS_MAX: usize = 4096;

/// A profile as it is written in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompProfile {
    default_action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    names: Vec<String>,
    action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Why a profile cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeccompProfileError {
    /// It is not JSON of the expected form.
    #[error("expected a seccomp profile in the form of the OCI runtime specification: {0}")]
    Form(String),
    /// An action that is not known or cannot be carried out.
    #[error(
        "action {0:?} is not one this runtime has; use SCMP_ACT_ALLOW, ERRNO, KILL, KILL_PROCESS, TRAP, TRACE or LOG"
    )]
    Action(String),
    /// A comparison that is not known, or of an argument that no call has.
    #[error("condition {0:?} on argument {1} is not one the kernel can check")]
    Condition(String, u8),
    /// It is too long.
    #[error("the profile compiles to {0} instructions; the kernel takes {INSTRUCTIONS_MAX}")]
    Length(usize),
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;
const KILL_PROCESS: u32 = 0x8000_0000;
/// Where `struct seccomp_data` has the call, the architecture and the arguments.
const CALL_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
/// From here on calls are numbered for programs with short pointers (x32), which no rule was written for.
#[cfg(target_arch = "x86_64")]
const FOREIGN_FROM: Option<u32> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
const FOREIGN_FROM: Option<u32> = None;

impl SeccompProfile {
    /// Reads a profile and makes sure that it can be carried out.
    pub fn parse(text: &[u8]) -> Result<SeccompProfile, SeccompProfileError> {
        let profile: SeccompProfile =
            serde_json::from_slice(text).map_err(|error| SeccompProfileError::Form(error.to_string()))?;
        profile.compile()?;
        Ok(profile)
    }

    /// The filter.
    pub(crate) fn compile(&self) -> Result<Vec<sock_filter>, SeccompProfileError> {
        let default = action(&self.default_action, self.default_errno_ret)?;
        let mut program = vec![step(LOAD, 0, 0, ARCHITECTURE_AT), step(JUMP_EQUAL, 1, 0, ARCHITECTURE)];
        program.extend([step(RETURN, 0, 0, KILL_PROCESS), step(LOAD, 0, 0, CALL_AT)]);
        if let Some(first) = FOREIGN_FROM {
            program.extend([step(JUMP_NOT_LESS, 0, 1, first), step(RETURN, 0, 0, KILL_PROCESS)]);
        }
        for (number, answers) in self.by_call()? {
            let mut body = Vec::new();
            for answer in &answers {
                body.extend(answer.program()?);
            }
            // What none of the conditions fits is as if it were not named at all.
            if answers.iter().all(|answer| !answer.conditions.is_empty()) {
                body.push(step(RETURN, 0, 0, default));
            }
            let length = u32::try_from(body.len()).map_err(|_| SeccompProfileError::Length(body.len()))?;
            // A long jump, because a conditional one reaches only 255 instructions.
            program.extend([step(JUMP_EQUAL, 1, 0, number), step(JUMP, 0, 0, length)]);
            program.extend(body);
        }
        program.push(step(RETURN, 0, 0, default));
        if program.len() > INSTRUCTIONS_MAX {
            return Err(SeccompProfileError::Length(program.len()));
        }
        Ok(program)
    }

    /// What is answered to each call, R1.
    fn by_call(&self) -> Result<BTreeMap<u32, Vec<Answer>>, SeccompProfileError> {
        let mut calls: BTreeMap<u32, Vec<Answer>> = BTreeMap::new();
        for rule in &self.syscalls {
            let result = action(&rule.action, rule.errno_ret)?;
            for number in rule.names.iter().filter_map(|name| call::number(name)) {
                let answers = calls.entry(number).or_default();
                // Two conditions on one argument are alternatives, as in every runtime that reads these files.
                let repeats = |one: &Condition| rule.args.iter().filter(|other| other.index == one.index).count() > 1;
                if rule.args.iter().any(repeats) {
                    answers.extend(rule.args.iter().map(|one| Answer { conditions: vec![one.clone()], result }));
                } else {
                    answers.push(Answer { conditions: rule.args.clone(), result });
                }
            }
        }
        for answers in calls.values_mut() {
            if let Some(whole) = answers.iter().position(|answer| answer.conditions.is_empty()) {
                let whole = answers.swap_remove(whole);
                *answers = vec![whole];
            }
        }
        Ok(calls)
    }
}

/// One answer to a call, and on what conditions; all must hold.
#[derive(Clone)]
struct Answer {
    conditions: Vec<Condition>,
    result: u32,
}

impl Answer {
    fn program(&self) -> Result<Vec<sock_filter>, SeccompProfileError> {
        let mut checks = Vec::new();
        for condition in &self.conditions {
            checks.push(condition.program()?);
        }
        // Each check falls through when it holds, and else jumps to the end, which is found backwards.
        let mut tail = vec![step(RETURN, 0, 0, self.result)];
        for check in checks.into_iter().rev() {
            let beyond = u32::try_from(tail.len()).map_err(|_| SeccompProfileError::Length(tail.len()))?;
            let mut part = check;
            part.push(step(JUMP, 0, 0, beyond));
            part.extend(tail);
            tail = part;
        }
        Ok(tail)
    }
}

impl Condition {
    /// Instructions that skip the one after them when the condition holds. Arguments are compared as two words.
    fn program(&self) -> Result<Vec<sock_filter>, SeccompProfileError> {
        let unknown = || SeccompProfileError::Condition(self.op.clone(), self.index);
        if self.index > 5 {
            return Err(unknown());
        }
        let low = |value: u64| u32::try_from(value & 0xffff_ffff).expect("masked to 32 bits");
        let high = |value: u64| low(value >> 32);
        let at = ARGUMENTS_AT + 8 * u32::from(self.index);
        let (load_low, load_high) = (step(LOAD, 0, 0, at), step(LOAD, 0, 0, at + 4));
        let value = self.value;
        let program = match self.op.as_str() {
            // The high words differ: to the instruction that fails. The low words are equal: over it.
            "SCMP_CMP_EQ" => {
                let last = step(JUMP_EQUAL, 1, 0, low(value));
                vec![load_high, step(JUMP_EQUAL, 0, 2, high(value)), load_low, last]
            }
            "SCMP_CMP_NE" => {
                let last = step(JUMP_EQUAL, 0, 1, low(value));
                vec![load_high, step(JUMP_EQUAL, 0, 3, high(value)), load_low, last]
            }
            "SCMP_CMP_MASKED_EQ" => vec![
                load_high,
                step(AND, 0, 0, high(value)),
                step(JUMP_EQUAL, 0, 3, high(self.value_two)),
                load_low,
                step(AND, 0, 0, low(value)),
                step(JUMP_EQUAL, 1, 0, low(self.value_two)),
            ],
            // Greater high words decide at once; equal ones leave it to the low words.
            "SCMP_CMP_GT" | "SCMP_CMP_GE" => {
                let code = if self.op == "SCMP_CMP_GT" { JUMP_GREATER } else { JUMP_NOT_LESS };
                let last = step(code, 1, 0, low(value));
                vec![
                    load_high,
                    step(JUMP_GREATER, 4, 0, high(value)),
                    step(JUMP_EQUAL, 0, 2, high(value)),
                    load_low,
                    last,
                ]
            }
            "SCMP_CMP_LT" | "SCMP_CMP_LE" => {
                let code = if self.op == "SCMP_CMP_LT" { JUMP_NOT_LESS } else { JUMP_GREATER };
                let last = step(code, 0, 1, low(value));
                vec![
                    load_high,
                    step(JUMP_GREATER, 3, 0, high(value)),
                    step(JUMP_EQUAL, 0, 3, high(value)),
                    load_low,
                    last,
                ]
            }
            _ => return Err(unknown()),
        };
        Ok(program)
    }
}

fn action(word: &str, errno: Option<u32>) -> Result<u32, SeccompProfileError> {
    let errno = errno.unwrap_or(u32::try_from(libc::EPERM).expect("error numbers are positive")) & 0xffff;
    Ok(match word {
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | errno,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | errno,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        other => return Err(SeccompProfileError::Action(other.to_owned())),
    })
}

fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel does.
    fn answer(program: &[sock_filter], call: u32, arguments: [u64; 6]) -> u32 {
        let word = |at: u32| match at {
            CALL_AT => call,
            ARCHITECTURE_AT => ARCHITECTURE,
            _ => {
                let value = arguments[((at - ARGUMENTS_AT) / 8) as usize];
                u32::try_from(if at % 8 == 4 { value >> 32 } else { value & 0xffff_ffff }).expect("a word")
            }
        };
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let mut branch = |holds: bool| at += usize::from(if holds { jt } else { jf });
            match code {
                LOAD => accumulator = word(k),
                AND => accumulator &= k,
                JUMP => at += k as usize,
                JUMP_EQUAL => branch(accumulator == k),
                JUMP_GREATER => branch(accumulator > k),
                JUMP_NOT_LESS => branch(accumulator >= k),
                RETURN => return k,
                other => panic!("{other:#x} is no instruction of ours"),
            }
        }
    }

    const ALLOW: u32 = 0x7fff_0000;
    const DENY: u32 = 0x0005_0001;

    fn check(rules: &str) -> Vec<sock_filter> {
        let text = format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{rules}]}}"#);
        SeccompProfile::parse(text.as_bytes()).expect("a profile").compile().expect("it compiles")
    }

    fn number(name: &str) -> u32 {
        call::number(name).expect("a call")
    }

    /// An operator, its value and second value, arguments that fit and arguments that do not.
    type Row<'a> = (&'a str, u64, u64, &'a [u64], &'a [u64]);

    #[test]
    fn every_comparison_is_made_on_all_64_bits() {
        let big = 1_u64 << 40;
        let rows: [Row; 7] = [
            ("EQ", big + 5, 0, &[big + 5], &[5, big, big + 6]),
            ("NE", big + 5, 0, &[5, big, big + 6], &[big + 5]),
            ("GT", big, 0, &[big + 1, big << 1], &[big, 7, 0xffff_ffff]),
            ("GE", big + 2, 0, &[big + 2, big << 1], &[big + 1, 0xffff_ffff]),
            ("LT", big + 2, 0, &[big + 1, 9, 0xffff_ffff], &[big + 2, big << 1]),
            ("LE", big + 2, 0, &[big + 2, 3], &[big + 3, big << 1]),
            ("MASKED_EQ", big | 6, big | 2, &[big | 2, big | 3], &[2, big | 6, big]),
        ];
        for (op, value, two, fits, others) in rows {
            let program = check(&format!(
                r#"{{"names": ["ioctl"], "action": "SCMP_ACT_ALLOW",
                    "args": [{{"index": 1, "value": {value}, "valueTwo": {two}, "op": "SCMP_CMP_{op}"}}]}}"#
            ));
            let answer = |argument| answer(&program, number("ioctl"), [0, argument, 0, 0, 0, 0]);
            fits.iter().for_each(|argument| assert_eq!(answer(*argument), ALLOW, "{op} {argument:#x}"));
            others.iter().for_each(|argument| assert_eq!(answer(*argument), DENY, "{op} {argument:#x}"));
        }
    }

    #[test]
    fn r1_a_rule_without_conditions_wins_and_conditions_on_one_argument_are_alternatives() {
        let eq = |index, value| format!(r#"{{"index": {index}, "value": {value}, "op": "SCMP_CMP_EQ"}}"#);
        let rule = |args: String| format!(r#"{{"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [{args}]}}"#);
        let both = check(&rule(format!("{},{}", eq(0, 1), eq(1, 2))));
        assert_eq!(answer(&both, number("ioctl"), [1, 2, 0, 0, 0, 0]), ALLOW);
        assert_eq!(answer(&both, number("ioctl"), [1, 3, 0, 0, 0, 0]), DENY);
        let either = check(&rule(format!("{},{}", eq(0, 1), eq(0, 2))));
        for (argument, expected) in [(1, ALLOW), (2, ALLOW), (3, DENY)] {
            assert_eq!(answer(&either, number("ioctl"), [argument, 0, 0, 0, 0, 0]), expected);
        }
        let whole = r#"{"names": ["ioctl", "read"], "action": "SCMP_ACT_KILL_PROCESS"}"#;
        let whole = check(&format!("{},{whole}", rule(eq(0, 1))));
        assert_eq!(answer(&whole, number("ioctl"), [1, 0, 0, 0, 0, 0]), KILL_PROCESS);
        assert_eq!(answer(&whole, number("write"), [0; 6]), DENY);
    }

    #[test]
    fn r2_unknown_calls_are_passed_over() {
        let program = check(r#"{"names": ["quantum_leap", "read"], "action": "SCMP_ACT_ALLOW"}"#);
        assert_eq!(answer(&program, number("read"), [0; 6]), ALLOW);
    }

    #[test]
    fn r3_calls_in_a_foreign_numbering_kill() {
        let program = check(r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW"}"#);
        if let Some(first) = FOREIGN_FROM {
            assert_eq!(answer(&program, first + 1, [0; 6]), KILL_PROCESS);
        }
        assert_eq!(program[2].k, KILL_PROCESS, "another architecture");
    }

    #[test]
    fn r4_what_cannot_be_carried_out_is_refused() {
        let refused = |text: &str| SeccompProfile::parse(text.as_bytes()).expect_err(text).to_string();
        assert!(refused(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#).contains("SCMP_ACT_NOTIFY"));
        assert!(refused("[]").contains("OCI runtime specification"));
        let op = r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "LIKE"}]}"#;
        assert!(refused(&format!(r#"{{"defaultAction": "SCMP_ACT_KILL", "syscalls": [{op}]}}"#)).contains("LIKE"));
        let far = r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}"#;
        assert!(
            refused(&format!(r#"{{"defaultAction": "SCMP_ACT_KILL", "syscalls": [{far}]}}"#)).contains("argument 6")
        );
    }
}
