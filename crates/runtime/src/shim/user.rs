//! Who a container's process is: numbers or names, looked up in the container's own files, which are hostile.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

use crate::launch::Identity;
use crate::spec::ImageGroups;

/// The most that is read of a container's passwd or group file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Beyond this the kernel and many programs read a number as negative (CVE-2024-40635).
const NUMBER_MAX: u32 = i32::MAX as u32;

/// Who is asked for.
pub(super) struct Wanted<'a> {
    /// As an image or a spec has it: empty, `uid`, `uid:gid`, `name`, `name:group`.
    pub user: &'a str,
    /// Groups beyond the user's own.
    pub additional: &'a [u32],
    /// Whether the groups that list the user in the container's files count as well.
    pub image_groups: ImageGroups,
    /// How many ids there are.
    pub ids: u32,
}

/// Resolves who the process is. A group not named is the user's own in passwd, else 0.
pub(super) fn resolve(rootfs: &Path, wanted: &Wanted) -> Result<Identity, String> {
    let Wanted { user, additional, image_groups, ids } = *wanted;
    let (user, group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let passwd = read(rootfs, "etc/passwd")?;
    let number = number_of(user, "user")?;
    let entry = passwd.lines().filter_map(Account::parse).find(|account| match number {
        Some(uid) => account.uid == uid,
        None => account.name == user,
    });
    let uid = number
        .or(entry.as_ref().map(|a| a.uid))
        .ok_or(format!("user {user:?} is not in the container's /etc/passwd"))?;
    let mut groups = Vec::new();
    let gid = match group.filter(|group| !group.is_empty()) {
        Some(group) => match number_of(group, "group")? {
            Some(gid) => gid,
            None => group_named(&read(rootfs, "etc/group")?, group)?,
        },
        None => entry.as_ref().map_or(0, |account| account.gid),
    };
    if let (Some(account), ImageGroups::Merge) = (&entry, image_groups) {
        groups = groups_listing(&read(rootfs, "etc/group")?, account.name);
    }
    groups.extend_from_slice(additional);
    groups.sort_unstable();
    groups.dedup();
    if let Some(beyond) = [uid, gid].into_iter().chain(groups.iter().copied()).find(|id| *id >= ids) {
        return Err(format!("id {beyond} is beyond the {ids} ids of its user namespace"));
    }
    let home = entry.as_ref().map(|account| account.home).filter(|home| home.starts_with('/')).unwrap_or("/");
    Ok(Identity { uid, gid, groups, home: home.to_owned() })
}

fn number_of(text: &str, what: &str) -> Result<Option<u32>, String> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(number) if number <= NUMBER_MAX => Ok(Some(number)),
        _ => Err(format!("{what} {text} is beyond {NUMBER_MAX}, the greatest number allowed")),
    }
}

/// One line of passwd that makes sense.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Account<'_> {
    fn parse(line: &str) -> Option<Account<'_>> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok().filter(|uid| *uid <= NUMBER_MAX)?;
        let gid = fields.next()?.parse().ok().filter(|gid| *gid <= NUMBER_MAX)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Account { name, uid, gid, home })
    }
}

/// Name, number and members of a line of group that makes sense.
fn group_line(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let gid = fields.nth(1)?.parse().ok().filter(|gid| *gid <= NUMBER_MAX)?;
    Some((name, gid, fields.next().unwrap_or_default()))
}

fn group_named(file: &str, wanted: &str) -> Result<u32, String> {
    let found = file.lines().filter_map(group_line).find(|(name, ..)| *name == wanted);
    found.map(|(_, gid, _)| gid).ok_or(format!("group {wanted:?} is not in the container's /etc/group"))
}

fn groups_listing(file: &str, user: &str) -> Vec<u32> {
    let lists = |members: &str| members.split(',').any(|member| member == user);
    file.lines().filter_map(group_line).filter(|(.., members)| lists(members)).map(|(_, gid, _)| gid).collect()
}

/// Reads a file of the container. It may be missing; it may not be anything but a small regular file inside.
fn read(rootfs: &Path, path: &str) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("could not read the container's /{path}: {error}");
    let root = openat(CWD, rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(|error| failed(&error))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(&root, path, flags, Mode::empty(), inside) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(error) => return Err(failed(&error)),
    };
    let found = fstat(&file).map_err(|error| failed(&error))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(failed(&"it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::from(file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(&format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Root {
            let path = std::env::temp_dir().join(format!("windlass-user-{}-{name}", std::process::id()));
            std::fs::create_dir_all(path.join("etc")).expect("a directory");
            std::fs::write(
                path.join("etc/passwd"),
                "root:x:0:0:root:/root:/bin/sh\nweb:x:100:101::/srv:/bin/sh\nbad:x:-1:0::/:\n",
            )
            .expect("passwd");
            std::fs::write(path.join("etc/group"), "root:x:0:\nweb:x:101:\nlogs:x:200:web,root\n").expect("group");
            Root(path)
        }

        fn ids(&self, user: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
            let wanted = Wanted { user, additional: &[], image_groups: ImageGroups::Merge, ids: 1 << 16 };
            resolve(&self.0, &wanted).map(|i| (i.uid, i.gid, i.groups, i.home))
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("our own directory");
        }
    }

    #[test]
    fn users_are_resolved_as_images_have_them() {
        let root = Root::new("forms");
        assert_eq!(root.ids(""), Ok((0, 0, vec![200], "/root".to_owned())));
        assert_eq!(root.ids("web"), Ok((100, 101, vec![200], "/srv".to_owned())));
        // The group list of the image counts whatever the group is, as Kubernetes has it (supplementalGroupsPolicy: Merge).
        assert_eq!(root.ids("web:logs"), Ok((100, 200, vec![200], "/srv".to_owned())));
        assert_eq!(root.ids("1000"), Ok((1000, 0, vec![], "/".to_owned())));
        assert_eq!(root.ids("1000:7"), Ok((1000, 7, vec![], "/".to_owned())));
        for user in ["nobody", "bad", "web:none", "65536", "4294967295", "2147483648", "1:4294967296"] {
            assert!(root.ids(user).is_err(), "{user}");
        }
    }

    #[test]
    fn the_images_groups_do_not_count_where_they_are_not_wanted() {
        let root = Root::new("strict");
        let wanted = Wanted { user: "web", additional: &[7], image_groups: ImageGroups::Strict, ids: 1 << 16 };
        let found = resolve(&root.0, &wanted).expect("a user");
        assert_eq!((found.uid, found.gid, found.groups), (100, 101, vec![7]));
    }

    #[test]
    fn a_passwd_that_leads_outside_or_is_no_file_is_not_read() {
        let root = Root::new("hostile");
        let passwd = root.0.join("etc/passwd");
        std::fs::remove_file(&passwd).expect("ours");
        symlink("../../../../../../etc/passwd", &passwd).expect("a link");
        // Inside the root the link leads back to itself, so the user is not found, and certainly not the machine's.
        assert!(root.ids("root").is_err());
        std::fs::remove_file(&passwd).expect("ours");
        std::fs::create_dir(&passwd).expect("a directory");
        assert!(root.ids("0").expect_err("a directory").contains("not a regular file"));
    }
}
