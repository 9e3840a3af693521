// Names of channels, topics and patterns, as docs/reference/protocol.md defines them.

const ID = "\\w[\\w.@+~|-]{0,127}";
const CHANNEL = `(?:(?:user|collection):${ID}|system)`;
const WHOLE_CHANNEL = new RegExp(`^${CHANNEL}$`);
const PATTERN = new RegExp(`^${CHANNEL}(?::${ID})*:(?:${ID}|\\*)$`);
const MAX_PARTS = 8;

export function isChannel(text: string): boolean {
  return WHOLE_CHANNEL.test(text);
}

/** Whether `text` is a topic, or a topic whose last part is `*`. */
export function isPattern(text: string): boolean {
  return PATTERN.test(text) && text.replace(":*", "").split(":").length <= MAX_PARTS;
}

export function isTopic(text: string): boolean {
  return isPattern(text) && !text.endsWith("*");
}

/** The channel of a topic: its first two parts, or `system`. */
export function channelOf(topic: string): string {
  const [kind = "", id] = topic.split(":", 2);
  return kind === "system" || id === undefined ? kind : `${kind}:${id}`;
}

export function matches(pattern: string, topic: string): boolean {
  return pattern.endsWith(":*") ? topic.startsWith(pattern.slice(0, -1)) : topic === pattern;
}

/**
 * The id of the operation, if the topic ends in `operation:{id}`. The channel is skipped: a user id
 * can be "operation".
 */
export function operationOf(topic: string): string | undefined {
  const start = topic.lastIndexOf(":operation:");
  if (start < 0 || start < channelOf(topic).length) return undefined;
  const id = topic.slice(start + ":operation:".length);
  return id.includes(":") ? undefined : id;
}
