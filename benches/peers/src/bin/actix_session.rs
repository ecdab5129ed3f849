use peers::{Failure, apps};

// Actix starts one single-threaded runtime per worker.
#[actix_web::main]
async fn main() -> Result<(), Failure> {
    apps::actix_session::serve(&apps::redis_url()?).await
}
