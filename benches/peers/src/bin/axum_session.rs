use peers::{Failure, apps};

fn main() -> Result<(), Failure> {
    apps::run(async { apps::serve(apps::axum_session::app(&apps::redis_url()?).await?).await })
}
