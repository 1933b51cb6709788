//! Users and groups of an image: names in its /etc/passwd and /etc/group become numbers.

use tiphys_cri::SupplementalGroupsPolicy;

/// Who a process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

/// What the pod asks for.
#[derive(Debug, Clone, Default)]
pub struct Wanted<'a> {
    pub uid: Option<u32>,
    pub name: &'a str,
    pub gid: Option<u32>,
    pub supplemental: &'a [u32],
    pub policy: SupplementalGroupsPolicy,
    /// The image's `USER`: `name`, `uid`, `name:group`, ….
    pub image_user: &'a str,
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd(text: &str) -> impl Iterator<Item = PasswdLine<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        Some(PasswdLine { name, uid, gid: fields.next()?.parse().ok()?, home: fields.nth(1).unwrap_or("/") })
    })
}

/// (name, gid, members)
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((name, fields.nth(1)?.parse().ok()?, fields.next().unwrap_or("")))
    })
}

/// Decides who the process is. The error is in the words that clients know from containerd.
pub fn resolve(wanted: &Wanted<'_>, passwd_text: &str, group_text: &str) -> Result<User, String> {
    let (image_user, image_group) = wanted.image_user.split_once(':').unwrap_or((wanted.image_user, ""));
    let number = wanted.uid.map(|uid| uid.to_string());
    // A group of the image belongs to the image's user, not to one that the pod chose.
    let (user, group) = match (&number, wanted.name) {
        (Some(number), _) => (number.as_str(), ""),
        (None, "") => (image_user, image_group),
        (None, name) => (name, ""),
    };
    let line = passwd(passwd_text).find(|line| line.name == user || user.parse() == Ok(line.uid));
    let (uid, primary, home) = match &line {
        Some(line) => (line.uid, line.gid, line.home),
        None if user.is_empty() => (0, 0, "/root"),
        None => (user.parse().map_err(|_| format!("unable to find user {user}: no matching entries in passwd file"))?, 0, "/"),
    };
    let gid = match (wanted.gid, group) {
        (Some(gid), _) => gid,
        (None, "") => primary,
        (None, group) => group_number(group, group_text)?,
    };
    let mut all = vec![gid];
    if wanted.policy == SupplementalGroupsPolicy::Merge {
        let name = line.as_ref().map(|line| line.name);
        all.extend(
            groups(group_text)
                .filter(|(_, _, members)| name.is_some_and(|name| members.split(',').any(|one| one == name)))
                .map(|(_, gid, _)| gid),
        );
    }
    all.extend(wanted.supplemental);
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|gid| seen.insert(*gid));
    Ok(User { uid, gid, groups: all, home: home.to_owned() })
}

fn group_number(group: &str, group_text: &str) -> Result<u32, String> {
    let known = groups(group_text).find(|(name, gid, _)| *name == group || group.parse() == Ok(*gid)).map(|(_, gid, _)| gid);
    known.or_else(|| group.parse().ok()).ok_or_else(|| format!("unable to find group {group}: no matching entries in group file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\nstaff:x:50:app\n";

    #[test]
    fn users_of_all_kinds() {
        type Expected<'a> = (u32, u32, &'a [u32], &'a str);
        let table: [(Wanted<'_>, Expected<'_>); 7] = [
            (Wanted::default(), (0, 0, &[0], "/root")),
            (Wanted { image_user: "app", ..Wanted::default() }, (1000, 1001, &[1001, 10, 50], "/home/app")),
            (Wanted { image_user: "app:staff", ..Wanted::default() }, (1000, 50, &[50, 10], "/home/app")),
            (Wanted { image_user: "app:staff", uid: Some(7), ..Wanted::default() }, (7, 0, &[0], "/")),
            (Wanted { uid: Some(1000), gid: Some(5), supplemental: &[8], ..Wanted::default() }, (1000, 5, &[5, 10, 50, 8], "/home/app")),
            (
                Wanted { uid: Some(1000), supplemental: &[8], policy: SupplementalGroupsPolicy::Strict, ..Wanted::default() },
                (1000, 1001, &[1001, 8], "/home/app"),
            ),
            (Wanted { image_user: "65532:65532", ..Wanted::default() }, (65532, 65532, &[65532], "/")),
        ];
        for (wanted, (uid, gid, groups, home)) in table {
            let user = resolve(&wanted, PASSWD, GROUP).unwrap();
            assert_eq!((user.uid, user.gid, user.groups.as_slice(), user.home.as_str()), (uid, gid, groups, home), "{wanted:?}");
        }
        assert!(resolve(&Wanted { image_user: "nobody", ..Wanted::default() }, PASSWD, GROUP).is_err());
    }

    #[test]
    fn root_without_passwd_has_a_home() {
        assert_eq!(resolve(&Wanted::default(), "", "").unwrap().home, "/root");
    }
}
