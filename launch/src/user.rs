//! Becoming the site's user, for good.

use crate::order::Order;
use crate::sys;

/// Refuses what must never be run.
pub fn check(order: &Order) -> Result<(), String> {
    let me = sys::effective_uid();
    if me == 0 && (order.uid == 0 || order.gid == 0) {
        return Err(
            "a site never runs as root: its user must have a uid and a gid above 0".to_owned(),
        );
    }
    if me != 0 && me != order.uid {
        return Err(format!(
            "the Emperor runs as uid {me} and cannot become uid {}: start it as root",
            order.uid
        ));
    }
    Ok(())
}

/// As root: no further groups, the group, the user, all three ids of each, and no way back. Otherwise nothing: everything
/// runs as one user.
pub fn become_user(order: &Order) -> Result<(), String> {
    if sys::effective_uid() != 0 {
        return Ok(());
    }
    sys::drop_groups()?;
    sys::set_gid(order.gid)?;
    sys::set_uid(order.uid)?;
    if sys::can_be_root_again() {
        return Err(format!(
            "uid {} can become root again; refusing to run the site",
            order.uid
        ));
    }
    Ok(())
}
