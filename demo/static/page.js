// The page: one connection to the bus, and at most one operation.
import { connect } from "/client.js";
import { SourcePicker } from "./source_picker.js";
import { ConnectionStatus } from "./connection_status.js";
import { Controls } from "./controls.js";
import { element } from "./dom.js";
import { Operation } from "./operation_state.js";
import { OperationList } from "./operation_list.js";
import { Search } from "./search.js";
import { login, operationState, SiteError } from "./site_api.js";
import { OperationView } from "./operation_view.js";

/** @typedef {import("./events.js").Events} Events */
/** @typedef {import("./site_api.js").Started} Started */

// Shorter than the default, which is for sites with thousands of pages.
const BACKOFF = { minMs: 250, maxMs: 3000 };
const STORAGE_KEY = "semantik.operation";

const view = new OperationView();
const search = new Search();
const connectionStatus = new ConnectionStatus();
const picker = new SourcePicker((started) => onStarted(started));
const operationList = new OperationList();
const controls = new Controls();

/** @type {import("/client.js").Bus<Events> | undefined} */
let bus;
let user = "";
let gateway = "";
let shownId = "";

async function token() {
  const answer = await login();
  user = answer.user;
  gateway = answer.gateway;
  picker.limit(answer);
  controls.allow(answer);
  view.flower = answer.flower;
  return answer.token;
}

/** Connects from a cursor. The bus delivers the events since then in order, then live events. @param {string} cursor */
function connectFrom(cursor) {
  bus?.close();
  // Events of the closed bus are ignored.
  /** @type {import("/client.js").Bus<Events>} */
  const connected = connect({ url: gateway, token, cursor, backoff: BACKOFF });
  bus = connected;
  bus.on("status", (change) => {
    if (connected !== bus) return;
    connectionStatus.update(change);
    view.live = change.status === "open";
    if (change.status === "open") void operationList.refresh();
  });
  operationList.use(bus, shownId);
  bus.on("*", (event) => {
    if (connected === bus) operationList.onEvent(event);
  });
  bus.on("error", (error) => console.warn("event bus:", error.message));
  return connected;
}

/** @param {Started} started */
function onStarted(started) {
  try {
    // A reloaded page or a second tab then needs no request to the site.
    localStorage.setItem(STORAGE_KEY, JSON.stringify({ ...started, user }));
  } catch {
    // Without storage the page fetches the state from the site.
  }
  shownId = started.operation;
  location.hash = `operation=${started.operation}`;
  show(started);
  element("choose").removeAttribute("open");
  element("main").focus({ preventScroll: true });
}

/** @param {Started} started */
function show({ operation: id, cursor, label, total }) {
  const operation = new Operation(label, total);
  shownId = id;
  search.close();
  view.show(operation);
  view.onEnded = () => (operation.state === "ready" ? search.open(id) : search.close("There is no index."));
  element("second-tab").setAttribute("href", `#operation=${id}`);
  const bus = connectFrom(cursor);
  controls.cancel = async () => {
    const undo = operation.requestStop();
    view.draw();
    try {
      await bus.op(id).cancel();
    } catch (error) {
      undo();
      view.draw();
      showError(error);
    }
  };
  // Fetches the state from the site: after lost events, or without a cursor.
  const refetch = async (provisional = false) => {
    const state = await operationState(id);
    if (provisional && operation.documents.size) return;
    operation.merge(state, provisional);
    view.draw();
  };
  bus.op(id).on("*", (event) => {
    operation.apply(event);
    view.draw();
    // A killed process may have stored documents without an event. If its task does not run again, fetch them.
    const ended = event.type === "operation.cancelled" || event.type === "operation.failed";
    if (ended && operation.incidents.some(({ kind }) => kind === "lost")) void refetch().catch(showError);
  });
  bus.on("gap", () => void refetch().catch(showError));
  if (!cursor) void refetch().catch(showError);
  // The page was opened while the gateway is down, so it fetches the state from the site.
  bus.on("status", ({ status }) => {
    if (status === "waiting" && !operation.documents.size) void refetch(true).catch(showError);
  });
}

/** @param {unknown} error */
function showError(error) {
  SourcePicker.showProblem(error instanceof Error ? `${error.message}.` : String(error));
}

/** Shows the operation of the URL, from the storage of this browser or from the site. */
async function open() {
  const id = new URLSearchParams(location.hash.slice(1)).get("operation") ?? "";
  if (id === shownId && bus) return;
  shownId = id;
  if (!id) return close();
  element("choose").removeAttribute("open");
  try {
    show(storedOperation(id) ?? (await operationState(id)));
  } catch (error) {
    close();
    if (error instanceof SiteError && error.status === 404) SourcePicker.showProblem("Cannot show this operation: it belongs to another browser or to an earlier run.");
    else showError(error);
  }
}

function close() {
  view.hide();
  search.close();
  element("choose").setAttribute("open", "");
  element("second-tab").setAttribute("href", "/");
  connectFrom("");
}

/** @param {string} id @returns {Started | undefined} */
function storedOperation(id) {
  try {
    const found = JSON.parse(localStorage.getItem(STORAGE_KEY) ?? "null");
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
  showError(error);
}
