// Stands in for Microsoft's Python Debugger, which cannot be fetched for the tests: what that one does for `connect`.
const vscode = require("vscode");

class Factory {
    createDebugAdapterDescriptor(session) {
        const { host, port } = session.configuration.connect;
        return new vscode.DebugAdapterServer(Number(port), host || "127.0.0.1");
    }
}

exports.activate = (context) => {
    context.subscriptions.push(vscode.debug.registerDebugAdapterDescriptorFactory("debugpy", new Factory()));
};
