// The page: one connection to the bus, at most one operation.
import { connect } from "/client.js";
import { Choose } from "./source_picker.js";
import { Connection } from "./connection_status.js";
import { Controls } from "./controls.js";
import { element } from "./dom.js";
import { Operation } from "./operation_state.js";
import { Others } from "./operation_list.js";
import { Search } from "./search.js";
import { login, operationState, SiteError } from "./site_api.js";
import { View } from "./operation_view.js";

/** @typedef {import("./events.js").Events} Events */
/** @typedef {import("./site_api.js").Started} Started */

// A handful of visitors may come back faster than the default, which thinks of thousands.
const BACKOFF = { minMs: 250, maxMs: 3000 };
const KEPT = "semantik.operation";

const view = new View();
const search = new Search();
const connection = new Connection();
const choose = new Choose((started) => begin(started));
const others = new Others();
const controls = new Controls();

/** @type {import("/client.js").Bus<Events> | undefined} */
let bus;
let user = "";
let gateway = "";
let shown = "";

async function token() {
  const answer = await login();
  user = answer.user;
  gateway = answer.gateway;
  choose.limit(answer);
  controls.allow(answer);
  view.flower = answer.flower;
  return answer.token;
}

/** Connects from a cursor: whatever was published since then comes at once, in order, and then what is new. @param {string} cursor */
function follow(cursor) {
  bus?.close();
  // A closed bus has a last word, which is about the past.
  /** @type {import("/client.js").Bus<Events>} */
  const now = connect({ url: gateway, token, cursor, backoff: BACKOFF });
  bus = now;
  bus.on("status", (change) => {
    if (now !== bus) return;
    connection.take(change);
    view.live = change.status === "open";
    if (change.status === "open") void others.ask();
  });
  others.follow(bus, shown);
  bus.on("*", (event) => {
    if (now === bus) others.heard(event);
  });
  bus.on("error", (error) => console.warn("event bus:", error.message));
  return now;
}

/** @param {Started} started */
function begin(started) {
  try {
    // For a reload, which then has nothing to ask, and for a second tab.
    localStorage.setItem(KEPT, JSON.stringify({ ...started, user }));
  } catch {
    // Without storage the site is asked.
  }
  shown = started.operation;
  location.hash = `operation=${started.operation}`;
  show(started);
  element("choose").removeAttribute("open");
  element("main").focus({ preventScroll: true });
}

/** @param {Started} started */
function show({ operation: id, cursor, label, total }) {
  const operation = new Operation(label, total);
  shown = id;
  search.close();
  view.show(operation);
  view.ended = () => (operation.state === "ready" ? search.open(id) : search.close("There is no index."));
  element("second-tab").setAttribute("href", `#operation=${id}`);
  const bus = follow(cursor);
  controls.cancel = async () => {
    const undo = operation.stop();
    view.draw();
    try {
      await bus.op(id).cancel();
    } catch (error) {
      undo();
      view.draw();
      complain(error);
    }
  };
  // Something is missing for good, or there was no cursor to begin with: the site knows the rest.
  const refetch = async (provisional = false) => {
    const state = await operationState(id);
    if (provisional && operation.documents.size) return;
    operation.merge(state, provisional);
    view.draw();
  };
  bus.op(id).on("*", (event) => {
    operation.take(event);
    view.draw();
    // A process that was killed may have written down what it could not tell any more. Run again, it tells; else the site.
    const ended = event.type === "operation.cancelled" || event.type === "operation.failed";
    if (ended && operation.happened.some(({ word }) => word === "lost")) void refetch().catch(complain);
  });
  bus.on("gap", () => void refetch().catch(complain));
  if (!cursor) void refetch().catch(complain);
  // Opened while the gateway is away: what there was until now the site knows, too.
  bus.on("status", ({ status }) => {
    if (status === "waiting" && !operation.documents.size) void refetch(true).catch(complain);
  });
}

/** @param {unknown} error */
function complain(error) {
  Choose.say(error instanceof Error ? `${error.message}.` : String(error));
}

/** The operation in the address: from what this browser has kept, else from the site. */
async function open() {
  const id = new URLSearchParams(location.hash.slice(1)).get("operation") ?? "";
  if (id === shown && bus) return;
  shown = id;
  if (!id) return close();
  element("choose").removeAttribute("open");
  try {
    show(kept(id) ?? (await operationState(id)));
  } catch (error) {
    close();
    if (error instanceof SiteError && error.status === 404) Choose.say("This operation is not known here: it may be another browser's, or of an earlier run.");
    else complain(error);
  }
}

function close() {
  view.hide();
  search.close();
  element("choose").setAttribute("open", "");
  element("second-tab").setAttribute("href", "/");
  follow("");
}

/** @param {string} id @returns {Started | undefined} */
function kept(id) {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT) ?? "null");
    return found?.operation === id && found.user === user ? found : undefined;
  } catch {
    return undefined;
  }
}

addEventListener("hashchange", () => void open());
try {
  await token();
  await open();
} catch (error) {
  complain(error);
}
