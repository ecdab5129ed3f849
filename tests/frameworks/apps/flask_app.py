"""A Flask app as the framework's users write it. Its variants differ in how the session is stored."""

import argparse
import json
from datetime import datetime, timezone

import redis
from flask import Flask, jsonify, request, session
from flask_session import Session
from werkzeug.serving import make_server

from flask_snippet import RedisSessionInterface


parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True, help="0 chooses a free one")
parser.add_argument("--redis", required=True)
parser.add_argument("--variant", choices=["json", "msgpack", "signer", "snippet"], required=True)
arguments = parser.parse_args()

app = Flask(__name__)
app.secret_key = "flask secret"
store = redis.from_url(arguments.redis)
if arguments.variant == "snippet":
    app.session_interface = RedisSessionInterface(store)
else:
    app.config["SESSION_TYPE"] = "redis"
    app.config["SESSION_REDIS"] = store
    app.config["SESSION_SERIALIZATION_FORMAT"] = "json" if arguments.variant == "json" else "msgpack"
    app.config["SESSION_USE_SIGNER"] = arguments.variant == "signer"
    Session(app)


@app.get("/")
def keys():
    return jsonify({key: value for key, value in session.items() if not key.startswith("_")})


@app.get("/user")
def user():
    # As Flask-Login stores it.
    return jsonify(session.get("_user_id"))


@app.post("/set/<key>/<path:value>")
def set_key(key, value):
    session[key] = json.loads(value)
    return ""


@app.post("/remove/<key>")
def remove(key):
    session.pop(key, None)
    return ""


@app.post("/login/<user>")
def login(user):
    session["_user_id"] = user
    if arguments.variant != "snippet":
        app.session_interface.regenerate(session)
    return ""


@app.post("/logout")
def logout():
    session.clear()
    return ""


@app.get("/permanent")
def is_permanent():
    return jsonify(session.permanent)


@app.post("/permanent/<value>")
def permanent(value):
    session.permanent = value == "true"
    return ""


def special_value():
    """What JSON cannot express, or this format can hardly."""
    value = {"big": 2**63 + 1, "z": 1.5, "a": [None, "\u00eb\U0001f980"]}
    if arguments.variant == "json":
        return value | {"huge": 2**70}
    if arguments.variant == "snippet":
        return value | {"huge": 2**70, "tuple": (1, "x"), "set": {7}, "bytes": b"\xff\x00", 5: "integer"}
    return value | {"bytes": b"\xff\x00", "time": datetime(2026, 1, 2, 3, 4, 5, 6, timezone.utc), 5: "integer"}


@app.post("/special")
def set_special():
    session["special"] = special_value()
    return ""


@app.get("/special")
def has_special():
    return jsonify(repr(session.get("special")) == repr(special_value()))


server = make_server("127.0.0.1", arguments.port, app, threaded=True)
print(f"listening on {server.server_port}", flush=True)
server.serve_forever()
