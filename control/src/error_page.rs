//! The page that a visitor gets instead of a site: nginx serves it (see `templates/error-location.conf`), and the daemon to
//! those it finds in the queue of a site that does not start.

use askama::Template;

/// Its headline, unless the status has one of its own.
pub const TITLE: &str = "This site cannot be shown right now";
/// What a visitor is advised to do.
pub const TEXT: &str = "Please try again in a moment.";

/// The page; what it says is escaped for HTML.
#[derive(Debug, Template)]
#[template(path = "error-page.html")]
pub struct ErrorPage<'a> {
    /// The headline.
    pub title: &'a str,
    /// What to do.
    pub text: &'a str,
    /// The HTTP status.
    pub status: u16,
    /// Why, in a word.
    pub reason: &'a str,
    /// What the operator finds it by.
    pub id: &'a str,
}
