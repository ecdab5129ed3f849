//! The pages. maud escapes every value in parentheses.

use std::time::SystemTime;

use axum::{
    body::Body,
    http::{Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use axum_redis_sessions::{FlashMessage, NextPath, SessionError};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{
    accounts::{InvalidSignUp, NAME_CHARACTERS, PASSWORD_CHARACTERS, User},
    device::{Device, ago},
};

/// One session of the user.
pub(crate) struct Row {
    pub(crate) device: Device,
    /// Identifies the session in a form, but cannot be used to authenticate.
    pub(crate) handle: String,
    pub(crate) created: SystemTime,
    pub(crate) last_seen: SystemTime,
    pub(crate) is_current: bool,
}

pub(crate) fn home(user: &User, devices: &[Row], messages: &[FlashMessage]) -> Markup {
    let others = devices.iter().filter(|row| !row.is_current).count();
    let main = html! {
        h1 { "Where you are signed in" }
        ul.devices {
            @for row in devices {
                li { (device(row)) }
            }
        }
        @if others > 0 {
            form method="post" action="/sign-out-elsewhere" {
                button.wide { "Sign out everywhere else" }
            }
        }
        p.aside { a href="/delete-account" { "Delete account" } }
        script src="/live.js" defer {}
    };
    page("Where you are signed in", Some(user), messages, &main)
}

fn device(row: &Row) -> Markup {
    let Device {
        label,
        is_handheld,
        address,
    } = &row.device;
    html! {
        (if *is_handheld { PHONE } else { LAPTOP })
        div {
            h2 {
                (label)
                @if row.is_current { " " span.badge { "this device" } }
            }
            p {
                @if row.is_current { "Active now" } @else { "Last seen " (ago(row.last_seen)) }
                @if !address.is_empty() { " · " span.address { (address) } }
                br;
                "Signed in " (ago(row.created))
            }
        }
        @if !row.is_current {
            form method="post" action="/sign-out-there" {
                input type="hidden" name="session" value=(row.handle);
                button aria-label={ "Sign out there: " (label) } { "Sign out there" }
            }
        }
    }
}

/// Before the account is deleted.
pub(crate) fn delete_account(user: &User) -> Markup {
    let main = html! {
        h1 { "Delete your account?" }
        p { "You are signed out everywhere, and the account cannot be restored." }
        form method="post" action="/delete-account" {
            button.wide { "Delete the account of " (user.name) }
        }
        p.aside { a href="/" { "Back" } }
    };
    page("Delete account", Some(user), &[], &main)
}

pub(crate) struct SignIn<'a> {
    pub(crate) name: &'a str,
    /// Where to go afterwards.
    pub(crate) next: &'a NextPath,
    /// The user is signed in, and is asked for the password again.
    pub(crate) is_confirmation: bool,
    pub(crate) is_wrong: bool,
}

pub(crate) fn sign_in(form: &SignIn<'_>, messages: &[FlashMessage]) -> Markup {
    let &SignIn {
        name,
        next,
        is_confirmation,
        is_wrong,
    } = form;
    let main = html! {
        h1 { @if is_confirmation { "Enter your password again" } @else { "Sign in" } }
        // The message does not say which of the two is wrong.
        @if is_wrong { p.alert #alert role="alert" { "The name or the password is wrong." } }
        form.credentials method="post" action="/sign-in" {
            (name_field(name))
            label for="password" { "Password" }
            input #password name="password" type="password" autocomplete="current-password" required
                aria-describedby=[is_wrong.then_some("alert")] autofocus[is_wrong || is_confirmation];
            @if !is_confirmation { (remember_field()) }
            input type="hidden" name="next" value=(next);
            button.primary { "Sign in" }
        }
        p.aside { "New here? " a href="/sign-up" { "Create an account" } }
    };
    page("Sign in", None, messages, &main)
}

pub(crate) fn sign_up(
    name: &str,
    messages: &[FlashMessage],
    invalid: Option<InvalidSignUp>,
) -> Markup {
    let alert = invalid.map(|invalid| match invalid {
        InvalidSignUp::Name => format!(
            "Choose a name of at most {} characters.",
            NAME_CHARACTERS.end()
        ),
        InvalidSignUp::NameTaken => "This name is taken. Choose another one.".to_owned(),
        InvalidSignUp::Password => format!(
            "Choose a password of at least {} characters.",
            PASSWORD_CHARACTERS.start()
        ),
    });
    let main = html! {
        h1 { "Create an account" }
        @if let Some(alert) = &alert { p.alert #alert role="alert" { (alert) } }
        form.credentials method="post" action="/sign-up" {
            (name_field(name))
            label for="password" { "Password" }
            input #password name="password" type="password" autocomplete="new-password" required
                minlength=(PASSWORD_CHARACTERS.start()) maxlength=(PASSWORD_CHARACTERS.end())
                aria-describedby="rule";
            p.hint #rule { "At least " (PASSWORD_CHARACTERS.start()) " characters. A few words make a good one." }
            (remember_field())
            button.primary { "Create account" }
        }
        p.aside { "Have one already? " a href="/sign-in" { "Sign in" } }
    };
    page("Create an account", None, messages, &main)
}

fn name_field(name: &str) -> Markup {
    html! {
        label for="name" { "Name" }
        input #name name="name" value=(name) autocomplete="username" autocapitalize="none" spellcheck="false" required
            maxlength=(NAME_CHARACTERS.end()) autofocus[name.is_empty()];
    }
}

fn remember_field() -> Markup {
    html! {
        label.check {
            input type="checkbox" name="remember" value="yes";
            span {
                "Remember me"
                small { "Stay signed in when the browser closes." }
            }
        }
    }
}

/// Replaces any page if the session cannot be loaded or saved.
pub(crate) fn unavailable(error: &SessionError, request: &Parts) -> Response<String> {
    let main = html! {
        h1 { "Temporarily unavailable" }
        p { "We cannot load your session at the moment. You have not been signed out. Please try again in a minute." }
        @if request.method == Method::GET {
            // Not the path itself: `//host` would lead to another one.
            p { a href=(NextPath::new(request.uri.path())) { "Try again" } }
        }
    };
    let page = page("Temporarily unavailable", None, &[], &main).into_string();
    let response = Response::builder()
        .status(error.status())
        .header(header::CONTENT_TYPE, "text/html; charset=utf-8");
    response.body(page).expect("valid parts")
}

/// The response to a cross-site request.
pub(crate) fn cross_site() -> Response<Body> {
    let main = html! {
        h1 { "This request came from another site" }
        p { "Nothing was changed. To do it here, go " a href="/" { "back to this site" } "." }
    };
    let page = page("Request rejected", None, &[], &main);
    (StatusCode::FORBIDDEN, page).into_response()
}

fn page(title: &str, user: Option<&User>, messages: &[FlashMessage], main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                @if let Some(user) = user {
                    header {
                        span.user { (user.name) }
                        form method="post" action="/sign-out" { button { "Sign out" } }
                    }
                }
                @for message in messages {
                    p class={ "flash " (message.level) } role="status" { (message.text) }
                }
                main .narrow[user.is_none()] { (main) }
            }
        }
    }
}

const LAPTOP: PreEscaped<&str> = PreEscaped(
    r#"<svg viewBox="0 0 24 24" aria-hidden="true"><rect x="4" y="5" width="16" height="11" rx="1.5"/><path d="M2 19h20"/></svg>"#,
);
const PHONE: PreEscaped<&str> = PreEscaped(
    r#"<svg viewBox="0 0 24 24" aria-hidden="true"><rect x="7" y="2.5" width="10" height="19" rx="2"/><path d="M11 18.5h2"/></svg>"#,
);

const STYLE: &str = "
:root { --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --card: #fff; --ground: #f4f6f8; --act: #0b5cad; --on-act: #fff;
  --good: #e4f4e8; --good-ink: #14532d; --bad: #fdeaea; --bad-ink: #8a1c1c }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a3acb6; --line: #3a424b; --card: #1d2228; --ground: #14171b; --act: #7db8f5; --on-act: #0d1a27;
    --good: #173523; --good-ink: #b5e6c4; --bad: #431d1d; --bad-ink: #f6c1c1 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 42rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--ground) }
header { display: flex; justify-content: space-between; align-items: center; gap: 1rem; margin-bottom: 1.25rem }
.user { font-weight: 600; overflow-wrap: anywhere }
main { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: 1.5rem }
.narrow { max-width: 25rem; margin: 6vh auto 0 }
h1 { font-size: 1.375rem; line-height: 1.25; margin: 0 0 1.25rem }
h2 { font-size: 1rem; margin: 0 }
a { color: var(--act) }
button { font: inherit; font-weight: 500; min-height: 2.75rem; padding: .5rem 1rem; border: 1px solid var(--line);
  border-radius: .5rem; background: var(--card); color: inherit; cursor: pointer }
button:hover { border-color: var(--soft) }
.primary { border-color: transparent; background: var(--act); color: var(--on-act); margin-top: .5rem }
.wide { width: 100%; margin-top: 1.25rem }
:focus-visible { outline: 3px solid var(--act); outline-offset: 2px }
.credentials { display: grid; gap: .375rem }
label { font-weight: 500 }
input:not([type]), input[type=password] { font: inherit; width: 100%; min-height: 2.75rem; padding: .5rem .75rem; margin-bottom: .5rem;
  border: 1px solid var(--soft); border-radius: .5rem; background: var(--card); color: inherit }
.hint, .aside, small, .devices p { color: var(--soft); font-size: .875rem }
.hint { margin: -.25rem 0 .5rem }
.aside { margin: 1.25rem 0 0 }
.check { display: flex; gap: .75rem; align-items: start; padding: .25rem 0 }
.check input { width: 1.25rem; height: 1.25rem; margin: .125rem 0 0; accent-color: var(--act); flex: none }
small { display: block; font-weight: 400 }
.flash, .alert { margin: 0 0 1.25rem; padding: .75rem 1rem; border-radius: .5rem }
.flash { background: var(--good); color: var(--good-ink) }
.flash:has(+ .narrow) { max-width: 25rem; margin: 6vh auto -4vh }
.alert { background: var(--bad); color: var(--bad-ink) }
.devices { list-style: none; margin: 0; padding: 0 }
.devices li { display: flex; flex-wrap: wrap; gap: .75rem; align-items: center; padding: 1rem 0; border-top: 1px solid var(--line) }
.devices li > div { flex: 1 1 14rem }
.devices p { margin: .125rem 0 0 }
.address { white-space: nowrap }
svg { width: 2rem; flex: none; fill: none; stroke: var(--soft); stroke-width: 1.5; stroke-linecap: round }
.badge { display: inline-block; padding: 0 .5rem; border-radius: 1rem; background: var(--good); color: var(--good-ink); font-size: .8125rem;
  font-weight: 500 }
@media (max-width: 30rem) {
  .devices li { display: grid; grid-template-columns: 2rem 1fr; align-items: start }
  .devices form { grid-column: 2 }
}
";
