import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist/", "build/", "scripts/", "eslint.config.js"] },
  ...tseslint.configs.strictTypeChecked,
  { languageOptions: { parserOptions: { projectService: true } } },
  {
    rules: {
      // Numbers in messages are the point of the messages.
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      // `(frame) => this.#take(frame)` and `return this.#ended(...)` say more shortly what happens next.
      "@typescript-eslint/no-confusing-void-expression": "off",
    },
  },
  {
    files: ["types/**"],
    rules: {
      // Wrong use is what these files consist of.
      "@typescript-eslint/no-unused-expressions": "off",
      "@typescript-eslint/no-unsafe-return": "off",
      "@typescript-eslint/no-unsafe-member-access": "off",
      "@typescript-eslint/no-meaningless-void-operator": "off",
    },
  },
  {
    files: ["test/**"],
    rules: {
      // `test(...)` returns a promise that the runner itself waits for.
      "@typescript-eslint/no-floating-promises": ["error", { allowForKnownSafeCalls: [{ from: "package", package: "node:test", name: ["test", "describe", "it"] }] }],
    },
  },
);
