//! With actix-session, on actix-web: another framework, so only its own columns can be told apart from the framework's.

use std::net::TcpListener;

use actix_session::{
    Session, SessionMiddleware,
    config::{BrowserSession, CookieContentSecurity},
    storage::RedisSessionStore,
};
use actix_web::{
    App, HttpServer,
    cookie::{Key, SameSite, time::Duration},
    error::ErrorInternalServerError,
    web,
};

use super::nothing;
use crate::{COOKIE, Failure, fields};

pub async fn serve(redis: &str) -> Result<(), Failure> {
    let store = RedisSessionStore::new(redis)
        .await
        .map_err(|error| error.to_string())?;
    // The same in each process, so that one takes the other's cookies.
    let key = Key::from(&[7; 64]);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let server = HttpServer::new(move || {
        let sessions = SessionMiddleware::builder(store.clone(), key.clone())
            .cookie_name(COOKIE.to_owned())
            .cookie_same_site(SameSite::Lax)
            // The cheapest that it has.
            .cookie_content_security(CookieContentSecurity::Signed)
            .session_lifecycle(BrowserSession::default().state_ttl(Duration::days(1)))
            .build();
        App::new().route("/bare", web::get().to(nothing)).service(
            web::scope("")
                .wrap(sessions)
                .route("/untouched", web::get().to(nothing))
                .route("/read", web::get().to(read))
                .route("/write", web::get().to(write))
                .route("/login", web::get().to(login))
                .route("/seed/{size}", web::get().to(seed)),
        )
    });
    server.workers(1).listen(listener)?.run().await?;
    Ok(())
}

async fn read(session: Session) -> actix_web::Result<String> {
    let number = session.get::<u64>("n").map_err(ErrorInternalServerError)?;
    Ok(number.unwrap_or(0).to_string())
}

async fn write(session: Session) -> actix_web::Result<String> {
    let number = session.get::<u64>("n").map_err(ErrorInternalServerError)?;
    let next = number.unwrap_or(0) + 1;
    session
        .insert("n", next)
        .map_err(ErrorInternalServerError)?;
    Ok(next.to_string())
}

async fn login(session: Session) -> actix_web::Result<&'static str> {
    session.renew();
    session
        .insert("user", 42)
        .map_err(ErrorInternalServerError)?;
    Ok("0")
}

async fn seed(session: Session, size: web::Path<usize>) -> actix_web::Result<&'static str> {
    session.insert("n", 1).map_err(ErrorInternalServerError)?;
    for (key, value) in fields(*size) {
        session
            .insert(key, value)
            .map_err(ErrorInternalServerError)?;
    }
    Ok("0")
}
