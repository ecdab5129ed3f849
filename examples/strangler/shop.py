"""The old app: a shop on Flask with Flask-Session, as it was before the move. `main.rs` starts it."""

import os

import redis
from flask import Flask, redirect, render_template_string, request, session
from flask_session import Session
from werkzeug.serving import make_server

app = Flask(__name__)
app.config.update(
    SESSION_TYPE="redis",
    SESSION_REDIS=redis.from_url(os.environ["REDIS_URL"]),
    SESSION_COOKIE_SAMESITE="Lax",
)
Session(app)

PAGE = """<!doctype html><html lang="en"><title>Shop</title>
<h1>Shop</h1>
<p>This page is served by Flask.</p>
{% if user %}
<p>Signed in as <b>{{ user }}</b>. <form method="post" action="/sign-out"><button>Sign out</button></form></p>
{% else %}
<form method="post" action="/sign-in"><label>Name <input name="name" required></label> <button>Sign in</button></form>
{% endif %}
{% for item in ["apple", "pear", "plum"] %}
<form method="post" action="/add/{{ item }}"><button>Add one {{ item }}</button></form>
{% endfor %}
<p><a href="/cart">Cart ({{ cart | length }})</a></p>
"""


@app.get("/")
def shop():
    return render_template_string(PAGE, user=session.get("_user_id"), cart=session.get("cart", []))


@app.post("/add/<item>")
def add(item):
    session["cart"] = session.get("cart", []) + [item]
    return redirect("/")


@app.post("/sign-in")
def sign_in():
    # A real app checks a password here. Flask-Login stores the user under this key.
    session["_user_id"] = request.form["name"]
    app.session_interface.regenerate(session)
    return redirect("/")


@app.post("/sign-out")
def sign_out():
    session.clear()
    return redirect("/")


server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
