//! actix-session on actix-web. This is another framework, so compare its rows with its own row without a session layer.

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

use super::{is_single_threaded, nothing};
use crate::{COOKIE, Failure, Shape, contents};

pub async fn serve(redis: &str) -> Result<(), Failure> {
    let store = RedisSessionStore::new(redis)
        .await
        .map_err(|error| error.to_string())?;
    // A fixed key, so two processes accept each other's cookies.
    let key = Key::from(&[7; 64]);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let server = HttpServer::new(move || {
        let sessions = SessionMiddleware::builder(store.clone(), key.clone())
            .cookie_name(COOKIE.to_owned())
            .cookie_same_site(SameSite::Lax)
            // The cheapest that it offers.
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
                .route("/seed/{shape}/{size}", web::get().to(seed)),
        )
    });
    // By default it has one worker a core.
    let server = match is_single_threaded() {
        true => server.workers(1),
        false => server,
    };
    server.listen(listener)?.run().await?;
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

async fn seed(
    session: Session,
    path: web::Path<(Shape, usize)>,
) -> actix_web::Result<&'static str> {
    let (shape, size) = path.into_inner();
    for (key, value) in contents(shape, size) {
        session
            .insert(key, value)
            .map_err(ErrorInternalServerError)?;
    }
    Ok("0")
}
