//! actix-session with its Redis store, as its users write it. Its variants differ in the cookie.

use actix_session::{
    Session, SessionMiddleware, config::CookieContentSecurity, storage::RedisSessionStore,
};
use actix_web::{
    App, HttpResponse, HttpServer, Responder, Result, cookie::Key, error::ErrorInternalServerError,
    web,
};
use framework_peers::{Arguments, Failure, KEY};
use serde_json::{Map, Value};

#[actix_web::main]
async fn main() -> std::result::Result<(), Failure> {
    let arguments = Arguments::read();
    let store = RedisSessionStore::new(arguments.redis()).await;
    let store = store.map_err(|error| error.to_string())?;
    let is_signed = arguments.variant() == "signed";
    let server = HttpServer::new(move || {
        let mut sessions = SessionMiddleware::builder(store.clone(), Key::from(&KEY));
        if is_signed {
            sessions = sessions.cookie_content_security(CookieContentSecurity::Signed);
        }
        App::new()
            .wrap(sessions.build())
            .route("/", web::get().to(keys))
            .route("/user", web::get().to(user))
            .route("/set/{key}/{value:.*}", web::post().to(set))
            .route("/remove/{key}", web::post().to(remove))
            .route("/login/{user}", web::post().to(login))
            .route("/logout", web::post().to(logout))
            .route("/permanent/{value}", web::post().to(HttpResponse::Ok))
    });
    server.workers(1).listen(arguments.listen()?)?.run().await?;
    Ok(())
}

async fn keys(session: Session) -> Result<impl Responder> {
    let mut keys = Map::new();
    for (key, text) in session.entries().iter() {
        if key != "user_id" {
            let value: Value = serde_json::from_str(text).map_err(ErrorInternalServerError)?;
            keys.insert(key.clone(), value);
        }
    }
    Ok(web::Json(keys))
}

async fn user(session: Session) -> Result<impl Responder> {
    Ok(web::Json(session.get::<String>("user_id")?))
}

async fn set(session: Session, path: web::Path<(String, String)>) -> Result<impl Responder> {
    let (key, value) = path.into_inner();
    let value: Value = serde_json::from_str(&value).map_err(ErrorInternalServerError)?;
    session.insert(key, value)?;
    Ok(HttpResponse::Ok())
}

async fn remove(session: Session, key: web::Path<String>) -> impl Responder {
    session.remove(&key);
    HttpResponse::Ok()
}

async fn login(session: Session, user: web::Path<String>) -> Result<impl Responder> {
    session.renew();
    session.insert("user_id", user.into_inner())?;
    Ok(HttpResponse::Ok())
}

async fn logout(session: Session) -> impl Responder {
    session.purge();
    HttpResponse::Ok()
}
