// Shows in the status bar that the extension host has started: VS Code knows its debuggers then. No picture of a session has it.
const vscode = require("vscode");

exports.activate = (context) => {
    const item = vscode.window.createStatusBarItem("ready", vscode.StatusBarAlignment.Right);
    item.text = "Ready for F5";
    item.show();
    context.subscriptions.push(item, vscode.debug.onDidStartDebugSession(() => item.dispose()));
};
