//! `examples/strangler`: pages of Flask and of axum behind one address.

#[path = "../../examples/strangler/main.rs"]
#[allow(dead_code)]
mod example;

use crate::support::{app::serve, browser::Browser, server::Server};

#[tokio::test]
async fn a_browser_stays_signed_in_across_flask_and_axum() {
    let redis = Server::start().await;
    let (app, _flask) = example::app(&redis.url()).await.expect("started");
    let app = serve(app).await;
    let browser = Browser::new();
    let shows = |page: String, texts: &[&str]| {
        for text in texts {
            assert!(page.contains(text), "{text} is not in {page}");
        }
    };
    let get = async |path: &str| browser.get(app.url(path)).await.body;
    let post = async |path: &str| browser.post(app.url(path), &[]).await.body;

    let name = [("name", "Zoë")];
    let page = browser.post(app.url("/sign-in"), &name).await;
    shows(page.body, &["served by Flask", "Signed in as <b>Zoë</b>"]);
    shows(post("/add/apple").await, &["Cart (1)"]);
    let cart = ["served by axum", "Signed in as <b>Zoë</b>", "<li>apple"];
    shows(get("/cart").await, &cart);
    shows(post("/cart/empty").await, &["served by axum", "<ul></ul>"]);
    shows(get("/").await, &["Signed in as <b>Zoë</b>", "Cart (0)"]);

    let former = browser.fork(&app.url("/"));
    let signed_out = ["served by Flask", "<label>Name"];
    shows(post("/cart/sign-out").await, &signed_out);
    shows(get("/").await, &signed_out);
    for path in ["/", "/cart"] {
        let page = former.get(app.url(path)).await.body;
        assert!(!page.contains("Zo"), "{page}");
    }
}
