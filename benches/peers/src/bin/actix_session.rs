use peers::{Failure, apps};

#[actix_web::main]
async fn main() -> Result<(), Failure> {
    apps::actix_session::serve(&apps::redis_url()?).await
}
